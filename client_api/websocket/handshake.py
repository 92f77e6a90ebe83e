"""The opening handshake: who may open a socket, and what of the request Autobahn is given.

Headers are judged here, where a refusal is an ordinary HTTP answer. Autobahn gets a request line and
headers of our own making, so odd headers of clients never reach its parser.

Source: RFC 6455, section 4.2.1; protocol/spec.md, "Opening"; security W1, W9, W11.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from protocol.errors import BadJson, Forbidden, InvalidParam
from protocol.frames import SUBPROTOCOL

GetHeader = Callable[[bytes], Sequence[bytes]]
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_NULL = b"null"
_EXTENSION = re.compile(rb"[\x20-\x7e]{1,512}")


def check_origin(origins: Sequence[bytes], allowed: Collection[str]) -> None:
    """See that a page of this origin may open a socket; raises Forbidden (security: W1).

    Programs that are no browsers send none. Without a list any page may: no cookie authenticates.
    """
    if not origins or not allowed:
        return
    known = {each.encode("utf-8") for each in allowed} - {_NULL}
    if len(origins) > 1 or origins[0] not in known:
        raise Forbidden("Pages of this origin may not open a WebSocket here")


def upgrade_request(get: GetHeader, *, compression: bool) -> bytes:
    """Check the headers of a handshake, and give the request as Autobahn is to see it.

    Raises:
        BadJson: the headers are not those of RFC 6455.
        InvalidParam: the subprotocol is not offered.
    """
    if b"websocket" not in _words(get(b"upgrade"), lower=True):
        raise BadJson("Upgrade: this is for WebSockets alone")
    if b"upgrade" not in _words(get(b"connection"), lower=True):
        raise BadJson("Connection: must say Upgrade")
    if list(get(b"sec-websocket-version")) != [b"13"]:
        raise BadJson("Sec-WebSocket-Version: must be 13")
    keys = get(b"sec-websocket-key")
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise BadJson("Sec-WebSocket-Key: must be 16 bytes in base64")
    name = SUBPROTOCOL.encode()
    if name not in _words(get(b"sec-websocket-protocol")):
        raise InvalidParam(f"Sec-WebSocket-Protocol: must offer {SUBPROTOCOL}")
    lines = [
        b"GET / HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + keys[0],
        b"Sec-WebSocket-Protocol: " + name,
    ]
    extensions = get(b"sec-websocket-extensions") if compression else ()
    if len(extensions) == 1 and _EXTENSION.fullmatch(extensions[0]):
        lines.append(b"Sec-WebSocket-Extensions: " + extensions[0])
    return b"\r\n".join(lines) + b"\r\n\r\n"


def bearer(authorizations: Sequence[bytes]) -> str | None:
    """Give the access token of the Authorization header."""
    for header in authorizations:
        if header[:7].lower() == b"bearer ":
            return header[7:].strip().decode("latin-1")
    return None


def _words(headers: Sequence[bytes], *, lower: bool = False) -> set[bytes]:
    words = {word.strip() for header in headers for word in header.split(b",")}
    return {word.lower() for word in words} if lower else words
