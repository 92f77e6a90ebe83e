"""Making an account from outside the running server, with the shared secret of its configuration.

A plain blocking client for the command line; the server's side is in `accounts`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from homeserver.config.sections import Config, Listener, ListenerResource

_PATH = "/_synapse/admin/v1/register"
_TIMEOUT = 30
MAX_WAIT_SECONDS = 60
"""The longest wait that a server may ask for."""


class RegistrationFailed(Exception):
    """The account was not made; the message says why."""


def register_user(
    config: Config,
    url: str | None,
    username: str,
    password: str,
    *,
    admin: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Register `username` on the running server and give the full user ID; waits where the server says so.

    Raises:
        RegistrationFailed: no shared secret, no server, or the server refused.
    """
    if config.registration.shared_secret is None:
        raise RegistrationFailed("registration.shared_secret is not set in the configuration")
    base = (url or _base_url(config)).rstrip("/")
    nonce = str(_call(base, None, sleep)["nonce"])
    role = "admin" if admin else "notadmin"
    mac = hmac.new(
        config.registration.shared_secret.reveal().encode(),
        b"\0".join(part.encode() for part in (nonce, username, password, role)),
        hashlib.sha1,
    )
    answer = _call(
        base,
        {"nonce": nonce, "username": username, "password": password, "admin": admin, "mac": mac.hexdigest()},
        sleep,
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


def _call(base: str, body: dict[str, object] | None, sleep: Callable[[float], None]) -> dict[str, Any]:
    while True:
        status, answer = _answer(base, body)
        if status == 200 and isinstance(answer, dict):
            return answer
        told = answer if isinstance(answer, dict) else {}
        wait = told.get("retry_after_ms")
        if status != 429 or not isinstance(wait, int) or not 0 <= wait <= MAX_WAIT_SECONDS * 1000:
            nonsense = f"{base} answered nonsense" if status == 200 else f"the server answered {status}"
            raise RegistrationFailed(str(told.get("error", nonsense)))
        sleep(wait / 1000)


def _answer(base: str, body: dict[str, object] | None) -> tuple[int, Any]:
    """Give status and JSON of an answer, None for what is no JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + _PATH, data, {"Content-Type": "application/json"})  # noqa: S310
    context = _context_of(base)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as response:  # noqa: S310
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    except (OSError, ValueError) as error:
        raise RegistrationFailed(f"no answer from {base}: is the server running? ({error})") from None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def _context_of(base: str) -> ssl.SSLContext | None:
    """Give how TLS is checked: on loopback the listener is this machine's own, and its certificate names
    the public host, not the address dialled."""
    if not base.startswith(("https://[::1]:", "https://127.0.0.1:")):
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
