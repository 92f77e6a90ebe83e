"""EDUs by type: each goes to the one handler that knows it, and none harms its neighbours.

What a handler believes is the authenticated origin alone; it checks the users in the content against it.

Source: server-server-api.md, "EDUs"; security F2, F12.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError
from protocol.identifiers import ServerName

log = Logger()


class EduHandler(Protocol):
    """Takes EDUs of one type."""

    def __call__(self, origin: ServerName, content: JsonObject, now: int, /) -> Awaitable[None]:
        """Act on the content of an EDU of `origin`; what makes no sense is passed over."""
        ...


@frozen(eq=False)
class Edus:
    """Hands EDUs to their handlers, by `edu_type`."""

    handlers: Mapping[str, EduHandler]

    async def take(self, origin: ServerName, edus: Sequence[object], now: int) -> None:
        """Hand EDUs on, in order; unknown and malformed ones are passed over."""
        for edu in edus:
            if not isinstance(edu, dict):
                continue
            handler, content = self.handlers.get(str(edu.get("edu_type"))), edu.get("content")
            if handler is None or not isinstance(content, dict):
                continue
            try:
                await handler(origin, content, now)
            except MatrixError as error:
                log.debug("an EDU of {origin} is passed over: {error}", origin=origin, error=error.error)
            except Exception:
                log.failure("an EDU of {origin} cannot be handled", origin=origin)
