"""Answers: the one place where replies and errors become statuses, headers and bytes.

Source: client-server-api/_index.md, "Standard error response", "Web Browser Clients"; security C12, C14.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from homeserver.http.calls import Json, Reply, Response, TakeOver
from protocol.canonical_json import dumps
from protocol.errors import MatrixError, Unavailable
from storage.database import DatabaseGone

log = Logger()

CORS_HEADERS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, PATCH, OPTIONS"),
    ("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date"),
    ("Access-Control-Max-Age", "86400"),
    ("Access-Control-Expose-Headers", "Retry-After"),
)
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)
STRICT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
"""What holds for all answers that do not bring a policy of their own."""
PREFLIGHT = Response(204, b"")
"""The answer to OPTIONS, whatever is asked about."""
_INTERNAL_ERROR = b'{"errcode":"M_UNKNOWN","error":"Internal server error"}'


def to_response(reply: Reply) -> Response | TakeOver:
    """Give a handler's reply in its full form."""
    if isinstance(reply, dict):
        return Response(200, dumps(reply))
    if isinstance(reply, Json):
        return Response(reply.status, reply.body)
    return reply


def error_response(error: Exception, what: str) -> Response:
    """Render an error; one that nobody foresaw is logged as the failure of `what` and told nothing of."""
    if isinstance(error, MatrixError):
        return _render(error)
    if isinstance(error, DatabaseGone):
        return _render(Unavailable("The database cannot be reached; try again"))
    log.failure("{what} failed", what=what)
    return Response(500, _INTERNAL_ERROR)


def _render(error: MatrixError) -> Response:
    retry_after_ms = error.extra.get("retry_after_ms")
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(retry_after_ms, int):
        headers = (("Retry-After", str(-(-retry_after_ms // 1000))),)
    return Response(error.status, _error_json(error.to_json()), headers)


def _error_json(content: dict[str, Any]) -> bytes:
    """Write an error; a sentence may quote text that is no UTF-8."""
    try:
        return dumps(content)
    except MatrixError:
        cleaned = {
            key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
            for key, value in content.items()
        }
        return dumps(cleaned)
