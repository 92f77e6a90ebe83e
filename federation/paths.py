"""Paths of the server-server API, percent-encoded as they are signed and sent."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"


def path(start: str, *parts: str) -> str:
    """Join path segments, each encoded whole, so that a slash in an event ID stays one segment."""
    return "/".join([start, *(quote(part, safe="") for part in parts)])


def with_query(uri: str, query: Sequence[tuple[str, str]]) -> str:
    """Add a query string."""
    return f"{uri}?{urlencode(query, quote_via=quote, safe='')}" if query else uri
