"""Answers that hold the state of a room: their lists of events are taken apart without being read.

A scan finds where each event begins and ends, at more than a gigabyte a second; each is read, checked and
forgotten by itself later (`PduChecker`), so that a room of a hundred thousand members holds nobody up.

Source: security D7.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from attrs import frozen

from federation.failures import BadAnswer
from homeserver.clock import Clock
from protocol.canonical_json import JsonValue, decode_lax
from protocol.errors import MatrixError
from protocol.identifiers import ServerName

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


@frozen
class LargeAnswer:
    """An answer by its fields, none of them read yet."""

    server: ServerName
    fields: dict[str, msgspec.Raw]
    clock: Clock

    @classmethod
    def of(cls, server: ServerName, body: bytes, clock: Clock) -> LargeAnswer:
        """Find the fields; raises BadAnswer if the answer is no JSON object."""
        try:
            return cls(server, _OBJECT.decode(body), clock)
        except _ERRORS:
            raise BadAnswer(server, "not a JSON object") from None

    async def listed(self, name: str) -> Sequence[bytes]:
        """Give the items of a list, each as JSON, with the reactor's next turn; raises BadAnswer."""
        await self.clock.sleep(0)
        try:
            return [bytes(item) for item in _LIST.decode(self.fields[name])]
        except (KeyError, *_ERRORS):
            raise BadAnswer(self.server, f"{name} is missing") from None

    def read(self, name: str) -> JsonValue:
        """Read a small field; None without it. Raises BadAnswer."""
        if name not in self.fields:
            return None
        try:
            return decode_lax(bytes(self.fields[name]))
        except MatrixError:
            raise BadAnswer(self.server, f"{name} is not JSON") from None
