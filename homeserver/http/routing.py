"""Endpoints as values, and the table that finds them: one walk along the raw path.

An endpoint is declared once: methods and paths, who may call it, which rate limit it draws on, the type
of its body, its handler. Older names of an endpoint are further paths of the same route. Path segments are
split before they are percent-decoded, so an encoded slash stays inside its parameter.

Source: client-server-api/_index.md, "API Standards"; RFC 3986, section 3.3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import field, frozen

from homeserver.http.calls import Call, Reply
from protocol.errors import InvalidParam, MethodNotAllowed, Unrecognized

MAX_SEGMENTS = 16
"""Segments a path may have; no endpoint has as many."""

Handler = Callable[[Call[Any]], Awaitable[Reply]]


class Auth(Enum):
    """Who may call an endpoint."""

    NONE = "none"
    """Anybody; a token is not looked at."""
    OPTIONAL = "optional"
    """Anybody; a token that is given must be right."""
    GUEST = "guest"
    """Users, guests included."""
    USER = "user"
    """Users with an account of their own."""
    ADMIN = "admin"
    """Administrators of this server."""
    SERVER = "server"
    """Other servers, by signature."""


class RateClass(Enum):
    """Which bucket a request draws on; the values name the keys of the configuration."""

    NONE = "none"
    READS = "reads"
    WRITES = "writes"
    MESSAGES = "messages"
    JOINS = "joins"
    INVITES = "invites"
    ROOMS = "rooms"
    LOGIN = "login"
    REGISTRATION = "registration"
    EPHEMERAL = "ephemeral"
    FEDERATION = "federation"


def _paths(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@frozen(eq=False)
class Route:
    """One endpoint.

    A segment `{name}` of a path is a parameter and matches any text but the empty one; `{name*}` matches
    the empty one too. `body` is the type of the body: a `msgspec.Struct` (an absent body counts as `{}`),
    `dict` for any JSON object, `bytes` for whatever comes, None for no body.
    """

    method: str
    paths: tuple[str, ...] = field(converter=_paths)
    handler: Handler
    body: Any = None
    auth: Auth = Auth.USER
    limit: RateClass = RateClass.READS
    max_body: int | None = None
    """Bytes a body may have; None: the configured limit."""
    waits: bool = False
    """The handler may wait long, and stops when the client goes away."""
    while_suspended: bool | None = None
    """Open to suspended accounts; None: if it only reads."""
    while_locked: bool = False
    """Open to locked accounts."""
    over_websocket: bool = True
    """Can be called by a frame; not so media, redirects, pages and what takes the connection over."""
    cors: bool = True
    """Pages of any origin may call it."""

    @property
    def open_to_suspended(self) -> bool:
        """Tell whether a suspended account may call it."""
        return self.method == "GET" if self.while_suspended is None else self.while_suspended


@frozen(eq=False)
class Match:
    """A route, and the parameters found in the path."""

    route: Route
    params: Mapping[str, str]


class _Node:
    """What may stand at one depth of the paths."""

    __slots__ = ("ends", "named", "parameter")

    def __init__(self) -> None:
        self.named: dict[bytes, _Node] = {}
        self.parameter: _Node | None = None
        self.ends: dict[str, tuple[Route, tuple[str, ...]]] = {}


class RouteTable:
    """All endpoints of a listener."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Index `routes`; raises ValueError if two have the same method and path."""
        self._root = _Node()
        self._plain: dict[tuple[str, bytes], Match] = {}
        self.routes = tuple(routes)
        for route in self.routes:
            for path in route.paths:
                self._add(route, path)

    def _add(self, route: Route, path: str) -> None:
        node = self._root
        names: list[str] = []
        segments = path.encode("ascii").split(b"/")[1:]
        for index, segment in enumerate(segments):
            if segment[:1] != b"{":
                node = node.named.setdefault(segment, _Node())
                continue
            name = segment[1:-1].decode()
            if name.endswith("*"):
                if index != len(segments) - 1:
                    raise ValueError(f"only the last parameter of {path} may be empty")
                name = name[:-1]
                self._end(node.named.setdefault(b"", _Node()), route, path, (*names, name))
            names.append(name)
            node.parameter = node.parameter or _Node()
            node = node.parameter
        self._end(node, route, path, tuple(names))
        if not names:
            self._plain[route.method, path.encode("ascii")] = Match(route, {})

    def _end(self, node: _Node, route: Route, path: str, names: tuple[str, ...]) -> None:
        if route.method in node.ends:
            raise ValueError(f"two routes for {route.method} {path}")
        node.ends[route.method] = (route, names)

    def match(self, method: str, raw_path: bytes) -> Match:
        """Find the endpoint of a method and a path as sent, without its query.

        Raises:
            Unrecognized: no endpoint has this path.
            MethodNotAllowed: one has it, with another method.
            InvalidParam: the path is not percent-encoded UTF-8.
        """
        plain = self._plain.get((method, raw_path))
        if plain is not None:
            return plain
        segments = raw_path.split(b"/")
        if segments[0] or not 1 < len(segments) <= MAX_SEGMENTS:
            raise Unrecognized("There is no such endpoint")
        if b"%" in raw_path:
            segments = [unquote_to_bytes(segment) for segment in segments]
        ends = _walk(self._root, segments, 1, [], method)
        if ends is None:
            raise Unrecognized("There is no such endpoint")
        found, values = ends
        if found is None:
            raise MethodNotAllowed(f"This endpoint does not know the method {method[:20]!r}")
        route, names = found
        if not names:
            return Match(route, {})
        try:
            decoded = [value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            raise InvalidParam("The path is not percent-encoded UTF-8") from None
        if len(decoded) < len(names):
            decoded.append("")
        return Match(route, dict(zip(names, decoded, strict=True)))


_End = tuple[tuple[Route, tuple[str, ...]] | None, list[bytes]]


def _walk(node: _Node, segments: list[bytes], index: int, values: list[bytes], method: str) -> _End | None:
    """Go down along the segments, a name before a parameter; None: no such path.

    The answer's first part is None if the path exists but not with this method. Branches are few, since a
    name and a parameter seldom stand at one place, and paths are short.
    """
    if index == len(segments):
        if not node.ends:
            return None
        end = node.ends.get(method) or (node.ends.get("GET") if method == "HEAD" else None)
        return end, values
    segment = segments[index]
    missed: _End | None = None
    named = node.named.get(segment)
    if named is not None:
        found = _walk(named, segments, index + 1, values, method)
        if found is not None and found[0] is not None:
            return found
        missed = found
    if node.parameter is not None and segment:
        found = _walk(node.parameter, segments, index + 1, [*values, segment], method)
        if found is not None and (found[0] is not None or missed is None):
            return found
    return missed
