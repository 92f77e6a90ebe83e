"""What an administrator does next: the words a server says when it is ready."""

from __future__ import annotations

from pathlib import Path

from homeserver.config.sections import Config, Listener, ListenerResource
from homeserver.registering import listener_url


def next_steps(config: Config, path: Path) -> list[str]:
    """Say where clients and browsers find the server, and how to make an account with the file at `path`."""
    lines = []
    clients = _first(config, ListenerResource.CLIENT)
    if clients is not None:
        lines.append(f"clients use the homeserver URL {config.public_baseurl or listener_url(clients)}")
        if config.registration.shared_secret is not None:
            lines.append(f"make an account: plait register-user --config {path} NAME")
    pages = _first(config, ListenerResource.WEB)
    if pages is not None:
        lines.append(f"a page for browsers: {listener_url(pages)}/")
    return lines


def _first(config: Config, resource: ListenerResource) -> Listener | None:
    return next((each for each in config.listeners if resource in each.resources), None)
