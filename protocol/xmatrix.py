"""The `X-Matrix` authorisation header, and the JSON whose signature it carries.

Built as strictly as the oldest server wants it, read as leniently as the specification asks and no more.
Whether the signature holds is for the caller to find out.

Source: server-server-api.md, "Request Authentication"; RFC 9110, sections 5.6 and 11.4.
"""

from __future__ import annotations

import re

from attrs import frozen

from protocol.canonical_json import JsonObject, JsonValue
from protocol.errors import InvalidParam, Unauthorized
from protocol.identifiers import KeyID, ServerName, parse_key_id, parse_server_name

MAX_HEADER_BYTES = 4096
"""Bytes of a header that is read; ours: names and signature together need far less."""

_TCHAR = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_SCHEME = re.compile(r"x-matrix +", re.IGNORECASE)
_PARAMETER = re.compile(
    rf'(?P<name>[{_TCHAR}]++)=(?:"(?P<quoted>(?:[\t !#-\[\]-~]++|\\[\t -~])*+)"|(?P<bare>[{_TCHAR}:]++))'
)
_COMMA = re.compile(r"[ \t]*+(?:,[ \t]*+)++")
_ESCAPE = re.compile(r"\\(.)")
_PLAIN = re.compile(r"[ !#-\[\]-~]*")


@frozen
class XMatrix:
    """What one header claims."""

    origin: ServerName
    destination: ServerName | None
    """None from servers older than version 1.3 of the specification."""
    key_id: KeyID
    signature: str
    """Base64, not yet decoded."""


def parse_xmatrix(header: bytes) -> XMatrix:
    """Read an `Authorization` header.

    Unknown parameters are passed over; one that is named twice is refused, since two readers could differ.
    Raises Unauthorized for any header that is not of this scheme and grammar.
    """
    parameters = _parameters(_text(header))
    try:
        origin = parse_server_name(parameters["origin"])
        key_id = parse_key_id(parameters["key"])
        signature = parameters["sig"] if "sig" in parameters else parameters["signature"]
        named = parameters.get("destination")
        destination = None if named is None else parse_server_name(named)
    except KeyError as missing:
        raise Unauthorized(f"The X-Matrix header lacks {missing}") from None
    except InvalidParam as error:
        raise Unauthorized(f"The X-Matrix header is malformed: {error.error}") from None
    return XMatrix(origin, destination, key_id, signature)


def _text(header: bytes) -> str:
    if len(header) > MAX_HEADER_BYTES:
        raise Unauthorized("The Authorization header is too long")
    try:
        return header.decode("ascii")
    except UnicodeDecodeError:
        raise Unauthorized("The Authorization header is not ASCII") from None


def _parameters(text: str) -> dict[str, str]:
    """Read the parameters of a header by their names in lower case; raises Unauthorized."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise Unauthorized("The Authorization header is not of the scheme X-Matrix")
    found: dict[str, str] = {}
    position = scheme.end()
    while True:
        parameter = _PARAMETER.match(text, position)
        if parameter is None:
            raise Unauthorized("The X-Matrix header is malformed")
        name = parameter["name"].lower()
        if name in found:
            raise Unauthorized("The X-Matrix header names a parameter twice")
        quoted = parameter["quoted"]
        found[name] = parameter["bare"] if quoted is None else _ESCAPE.sub(r"\1", quoted)
        position = parameter.end()
        if not text[position:].strip(" \t"):
            return found
        comma = _COMMA.match(text, position)
        if comma is None:
            raise Unauthorized("The X-Matrix header is malformed")
        position = comma.end()


def build_xmatrix(*, origin: ServerName, destination: ServerName, key_id: KeyID, signature: str) -> bytes:
    """Write the header that goes with a signed request; raises ValueError for what needs an escape."""
    values = (("origin", origin), ("destination", destination), ("key", key_id), ("sig", signature))
    for name, value in values:
        if _PLAIN.fullmatch(value) is None:
            raise ValueError(f"{name} cannot stand in a header")
    return b"X-Matrix " + ",".join([f'{name}="{value}"' for name, value in values]).encode("ascii")


def signed_request(
    method: str, uri: str, origin: ServerName, destination: ServerName, content: JsonValue | None = None
) -> JsonObject:
    """Give the JSON object that the signature of a request covers.

    `uri` is path and query exactly as they travel, from `/_matrix` on. A request without a body has no
    `content`.
    """
    signed: JsonObject = {"method": method, "uri": uri, "origin": origin, "destination": destination}
    if content is not None:
        signed["content"] = content
    return signed
