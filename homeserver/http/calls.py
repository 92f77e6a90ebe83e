"""What a handler gets, and what it gives: a call and a reply, free of any transport.

The same call comes over HTTP, over a WebSocket frame or from another server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import unquote

from attrs import field, frozen

from homeserver.accounts.requester import Requester
from protocol.errors import InvalidParam, MissingParam
from protocol.identifiers import ServerName

MAX_QUERY_FIELDS = 200
MAX_KNOWN = 1024
"""Characters of an escaped value that is remembered."""
B = TypeVar("B")


class Query:
    """The query string of a request, parsed when first asked."""

    __slots__ = ("_fields", "raw")

    def __init__(self, raw: bytes = b"") -> None:
        """Keep the text after the question mark."""
        self.raw = raw
        self._fields: dict[str, list[str]] | None = None

    def all(self, name: str) -> list[str]:
        """Give every value of a field, in order; raises InvalidParam for a query that is no text."""
        if self._fields is None:
            self._fields = _parse(self.raw) if self.raw else {}
        return self._fields.get(name, [])

    def get(self, name: str) -> str | None:
        """Give the first value of a field, None without it."""
        found = self.all(name) if self._fields is None else self._fields.get(name)
        return found[0] if found else None

    def required(self, name: str) -> str:
        """Give the first value of a field; raises MissingParam."""
        found = self.get(name)
        if found is None:
            raise MissingParam(f"The query lacks the field {name}")
        return found

    def integer(self, name: str, default: int, *, least: int = 0, most: int = 2**53 - 1) -> int:
        """Give a whole number, cut down to `most`; raises InvalidParam below `least` or for no number."""
        text = self.get(name)
        if text is None:
            return default
        digits = text[1:] if text.startswith("-") else text
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
            raise InvalidParam(f"The query field {name} must be a whole number")
        number = int(text)
        if number < least:
            raise InvalidParam(f"The query field {name} must be at least {least}")
        return min(number, most)

    def boolean(self, name: str, default: bool = False) -> bool:
        """Give `true` or `false`; raises InvalidParam for anything else."""
        text = self.get(name)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise InvalidParam(f"The query field {name} must be true or false")
        return text == "true"

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """Give one of `choices`; raises InvalidParam for anything else."""
        text = self.get(name)
        if text is None:
            return default
        if text not in choices:
            raise InvalidParam(f"The query field {name} must be one of {', '.join(choices)}")
        return text


def _parse(raw: bytes) -> dict[str, list[str]]:
    """Take a query apart, as `urllib.parse.parse_qsl` does, which is slower."""
    fields: dict[str, list[str]] = {}
    try:
        pieces = raw.decode("ascii").split("&")
        if len(pieces) > MAX_QUERY_FIELDS:
            raise InvalidParam(f"The query has more than {MAX_QUERY_FIELDS} fields")
        for piece in pieces:
            if piece:
                name, _, value = piece.partition("=")
                fields.setdefault(_unescape(name), []).append(_unescape(value))
    except UnicodeDecodeError:
        raise InvalidParam("The query is not percent-encoded UTF-8") from None
    return fields


def _unescape(text: str) -> str:
    """Undo the escapes of a name or value; raises UnicodeDecodeError."""
    if "%" not in text and "+" not in text:
        return text
    return _unquote_known(text) if len(text) <= MAX_KNOWN else _unquote(text)


def _unquote(text: str) -> str:
    return unquote(text.replace("+", " "), errors="strict")


_unquote_known = lru_cache(256)(_unquote)
"""Remembers escaped values, since clients send the same filter with every request."""


@frozen(eq=False)
class Call(Generic[B]):
    """One request for one endpoint, authenticated and decoded.

    `body` is of the route's type; `raw_body` the bytes it came as. `uri` is the request target as sent
    (path and query), `path` the decoded parameters of the template.
    """

    method: str
    uri: bytes
    path: Mapping[str, str]
    query: Query
    body: B
    now: int
    ip: str
    asker: Requester | None = None
    """Who asks, None for strangers."""
    server: ServerName | None = None
    """The server that asks, proved by its signature."""
    raw_body: bytes = b""
    user_agent: str = ""
    token: str | None = field(default=None, repr=False)
    """The access token as it came with an HTTP request."""

    @property
    def requester(self) -> Requester:
        """Give who asks, on a route that needs a user."""
        if self.asker is None:
            self._misdeclared("user")
        return self.asker

    @property
    def origin(self) -> ServerName:
        """Give the server that asks, on a route for servers."""
        if self.server is None:
            self._misdeclared("server")
        return self.server

    @property
    def access_token(self) -> str:
        """Give the access token, on a route that needs a user and is for HTTP alone."""
        if self.token is None:
            self._misdeclared("token")
        return self.token

    def _misdeclared(self, wanted: str) -> NoReturn:
        raise RuntimeError(f"the route {self.method} {self.uri!r} does not declare that it needs a {wanted}")


@frozen(eq=False)
class Json:
    """An answer that is JSON already."""

    body: bytes
    status: int = 200


@frozen(eq=False)
class Response:
    """An answer as it goes out; header names and values must be free of line breaks."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    pieces: AsyncIterator[bytes] | None = None
    """The body, if it is made while it goes out; then `body` is empty."""


@frozen(eq=False)
class TakeOver:
    """The connection itself is taken over (a WebSocket): `start` gets the transport's own request.

    What `start` gives instead is a refusal, answered as any other.
    """

    start: Callable[[Any], Response | None]


Reply = dict[str, Any] | Json | Response | TakeOver
"""What a handler gives; a dict is the JSON object of a 200."""

EMPTY = Json(b"{}")
"""The answer that says nothing but "done"."""
