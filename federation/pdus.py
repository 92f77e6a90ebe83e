"""The one door for events of other servers: from raw JSON to `Event`, by way of `protocol.checks`.

Keys are fetched for all events at once; signatures are verified in batches, on a thread when there are
many. A bad event is left out, and harms none of its neighbours.

Source: server-server-api.md, "Checks performed on receipt of a PDU", 1 to 3; security F7, F2, K9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import frozen
from twisted.logger import Logger

from federation.key_ring import KeyNeed, KeyRing
from federation.ports import RunOnThread
from protocol.checks import Pdu, keys_named, parse_pdu, verify_pdu
from protocol.errors import MatrixError
from protocol.events import Event, clamp
from protocol.identifiers import EventID, KeyID, RoomID, ServerName, parse_user_id, server_of
from protocol.limits import MAX_SIGNATURES
from protocol.room_versions import RoomVersion
from protocol.signing import ALGORITHM, VerifyKey

BATCH = 100
"""Events verified in one go on a thread."""
NOTED_AT_ONCE = 1_000
"""Events whose senders' keys are noted in one go on a thread: that is quick, and the trip is not."""
INLINE = 4
"""Up to so many events are verified at once, where a thread would cost more than it frees."""
Keys = Mapping[tuple[ServerName, KeyID], VerifyKey]

log = Logger()


@frozen
class PduChecker:
    """Checks events of other servers."""

    ring: KeyRing
    on_thread: RunOnThread

    async def check(self, raw: object, version: RoomVersion) -> Event:
        """Give the event in `raw`; raises BadJson, EventTooLarge or InvalidSignature."""
        pdu = parse_pdu(raw, version)
        (keys,) = await self._keys([_needs(pdu)])
        return verify_pdu(pdu, keys)

    async def check_many(
        self, raw: Sequence[object], version: RoomVersion, *, backfill: bool = False
    ) -> list[Event]:
        """Give the events in `raw` that pass, in order, each once; the others are left out.

        Items are JSON, read or not. Many are checked in batches, and others have their turn between.
        """
        if len(raw) > BATCH:
            await self._foresee(raw, version)
        events: dict[EventID, Event] = {}
        for start in range(0, len(raw), BATCH):
            for event in await self._check_batch(raw[start : start + BATCH], version, backfill):
                events.setdefault(event.event_id, event)
        return list(events.values())

    async def _check_batch(self, raw: Sequence[object], version: RoomVersion, backfill: bool) -> list[Event]:
        pdus: dict[bytes, tuple[Pdu, list[KeyNeed]]] = {}
        for item in raw:
            try:
                pdu = parse_pdu(item, version, backfill=backfill)
                pdus.setdefault(pdu.event.raw, (pdu, _needs(pdu)))
            except MatrixError as error:
                log.debug("an event of bad format is left out: {error}", error=error.error)
        keys = await self._keys([needs for _, needs in pdus.values()])
        parsed = [pdu for pdu, _ in pdus.values()]
        if len(parsed) <= INLINE:
            return _verify(parsed, keys)
        return await self.on_thread(_verify, parsed, keys)

    async def _foresee(self, raw: Sequence[object], version: RoomVersion) -> None:
        """Have the keys of all senders fetched at once, so that no batch waits for its own."""
        latest: dict[tuple[ServerName, KeyID], int] = {}
        for start in range(0, len(raw), NOTED_AT_ONCE):
            await self.on_thread(_note_keys, raw[start : start + NOTED_AT_ONCE], latest)
        dated = version.enforce_key_validity
        await self.ring.find(
            {KeyNeed(server, key_id, at if dated else None) for (server, key_id), at in latest.items()}
        )

    async def check_room(
        self, raw: Sequence[object], version: RoomVersion, room_id: RoomID, *, backfill: bool = False
    ) -> list[Event]:
        """Give the events in `raw` that pass and are of the room."""
        events = await self.check_many(raw, version, backfill=backfill)
        return [event for event in events if event.room_id == room_id]

    async def _keys(self, needs: Sequence[Sequence[KeyNeed]]) -> list[Keys]:
        """Give for each event the keys that may be believed for it."""
        found = await self.ring.find({need for of_pdu in needs for need in of_pdu})
        return [
            {(need.server, need.key_id): found[need] for need in of_pdu if need in found} for of_pdu in needs
        ]


class _Signed(msgspec.Struct):
    """What tells by whose keys an event is probably signed."""

    sender: str
    signatures: dict[str, dict[str, Any]]
    origin_server_ts: int = 0


_SIGNED = msgspec.json.Decoder(_Signed)


def _note_keys(raw: Sequence[object], latest: dict[tuple[ServerName, KeyID], int]) -> None:
    """Note the senders' keys, and the latest time at which each was used; runs on a thread."""
    for item in raw:
        try:
            signed = _SIGNED.decode(item) if isinstance(item, bytes) else msgspec.convert(item, _Signed)
            server = server_of(parse_user_id(signed.sender))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MatrixError, ValueError):
            continue
        for key_id in [*signed.signatures.get(server, ())][:MAX_SIGNATURES]:
            if key_id.startswith(f"{ALGORITHM}:"):
                key = (server, KeyID(key_id))
                latest[key] = max(latest.get(key, 0), clamp(signed.origin_server_ts))


def _needs(pdu: Pdu) -> list[KeyNeed]:
    """Give the keys an event needs, and for when: from room version 5 on, they must be valid at its time.

    Raises BadJson if the event names an authorising user that is none.
    """
    event = pdu.event
    at = event.origin_server_ts if event.version.enforce_key_validity else None
    return [KeyNeed(server, key_id, at) for server, key_id in sorted(keys_named(pdu))]


def _verify(pdus: Sequence[Pdu], keys: Sequence[Keys]) -> list[Event]:
    """Verify events one by one; runs on a thread."""
    events: list[Event] = []
    for pdu, of_pdu in zip(pdus, keys, strict=True):
        try:
            events.append(verify_pdu(pdu, of_pdu))
        except MatrixError as error:
            log.debug("an event is left out: {error}", error=error.error)
    return events
