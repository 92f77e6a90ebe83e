"""Making an account from outside the running server, with the shared secret of its configuration.

A plain blocking client for the command line; the server's side is in `accounts`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from homeserver.config.sections import Config, Listener, ListenerResource

_PATH = "/_synapse/admin/v1/register"
_TIMEOUT = 30


class RegistrationFailed(Exception):
    """The account was not made; the message says why."""


def register_user(config: Config, url: str | None, username: str, password: str, *, admin: bool) -> str:
    """Register `username` on the running server and give the full user ID.

    Raises:
        RegistrationFailed: no shared secret, no server, or the server refused.
    """
    if config.registration.shared_secret is None:
        raise RegistrationFailed("registration.shared_secret is not set in the configuration")
    base = (url or _base_url(config)).rstrip("/")
    nonce = str(_call(base, None)["nonce"])
    role = "admin" if admin else "notadmin"
    mac = hmac.new(
        config.registration.shared_secret.reveal().encode(),
        b"\0".join(part.encode() for part in (nonce, username, password, role)),
        hashlib.sha1,
    )
    answer = _call(
        base,
        {"nonce": nonce, "username": username, "password": password, "admin": admin, "mac": mac.hexdigest()},
    )
    return str(answer["user_id"])


def _base_url(config: Config) -> str:
    for listener in config.listeners:
        if ListenerResource.CLIENT in listener.resources:
            return listener_url(listener)
    raise RegistrationFailed("no listener serves the client API; give --url")


def listener_url(listener: Listener) -> str:
    """Give the URL at which a listener is reached on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.bind[0], listener.bind[0])  # noqa: S104
    scheme = "https" if listener.tls else "http"
    return f"{scheme}://[{host}]:{listener.port}" if ":" in host else f"{scheme}://{host}:{listener.port}"


def _call(base: str, body: dict[str, object] | None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + _PATH, data, {"Content-Type": "application/json"})  # noqa: S310
    context = _context_of(base)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise RegistrationFailed(_refusal(error)) from None
    except (OSError, ValueError) as error:
        raise RegistrationFailed(f"no answer from {base}: is the server running? ({error})") from None
    if not isinstance(answer, dict):
        raise RegistrationFailed(f"{base} answered nonsense")
    return answer


def _context_of(base: str) -> ssl.SSLContext | None:
    """Give how TLS is checked: on loopback the listener is this machine's own, and its certificate names
    the public host, not the address dialled."""
    if not base.startswith(("https://[::1]:", "https://127.0.0.1:")):
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code}"
