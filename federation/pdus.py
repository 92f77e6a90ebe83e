"""The one door for events of other servers: from raw JSON to `Event`, by way of `protocol.checks`.

Keys are fetched for all events at once; signatures are verified in batches, on a thread when there are
many. A bad event is left out, and harms none of its neighbours.

Source: server-server-api.md, "Checks performed on receipt of a PDU", 1 to 3; security F7, F2, K9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.logger import Logger

from federation.key_ring import KeyNeed, KeyRing
from federation.ports import RunOnThread
from protocol.checks import Pdu, keys_named, parse_pdu, verify_pdu
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import EventID, KeyID, RoomID, ServerName
from protocol.room_versions import RoomVersion
from protocol.signing import VerifyKey

BATCH = 100
"""Events verified in one go on a thread."""
INLINE = 4
"""Up to so many events are verified at once, where a thread would cost more than it frees."""
MAX_KEYS_TRIED = 8
"""Keys of one event that are fetched; more signatures than that are not looked at."""

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
        """Give the events in `raw` that pass, in order, each once; the others are left out."""
        pdus: dict[bytes, tuple[Pdu, list[KeyNeed]]] = {}
        for item in raw:
            try:
                pdu = parse_pdu(item, version, backfill=backfill)
                pdus.setdefault(pdu.event.raw, (pdu, _needs(pdu)))
            except MatrixError as error:
                log.debug("an event of bad format is left out: {error}", error=error.error)
        keys = await self._keys([needs for _, needs in pdus.values()])
        events: dict[EventID, Event] = {}
        for event in await self._verify_all([pdu for pdu, _ in pdus.values()], keys):
            events.setdefault(event.event_id, event)
        return list(events.values())

    async def check_room(
        self, raw: Sequence[object], version: RoomVersion, room_id: RoomID, *, backfill: bool = False
    ) -> list[Event]:
        """Give the events in `raw` that pass and are of the room."""
        events = await self.check_many(raw, version, backfill=backfill)
        return [event for event in events if event.room_id == room_id]

    async def _verify_all(self, pdus: Sequence[Pdu], keys: Sequence[Keys]) -> list[Event]:
        """Verify signatures and hashes, on a thread if there are many."""
        if len(pdus) <= INLINE:
            return _verify(pdus, keys)
        events: list[Event] = []
        for start in range(0, len(pdus), BATCH):
            batch = slice(start, start + BATCH)
            events += await self.on_thread(_verify, pdus[batch], keys[batch])
        return events

    async def _keys(self, needs: Sequence[Sequence[KeyNeed]]) -> list[Keys]:
        """Give for each event the keys that may be believed for it."""
        found = await self.ring.find({need for of_pdu in needs for need in of_pdu})
        return [
            {(need.server, need.key_id): found[need] for need in of_pdu if need in found} for of_pdu in needs
        ]


def _needs(pdu: Pdu) -> list[KeyNeed]:
    """Give the keys an event needs, and for when: from room version 5 on, they must be valid at its time.

    Raises BadJson if the event names an authorising user that is none.
    """
    event = pdu.event
    at = event.origin_server_ts if event.version.enforce_key_validity else None
    return [KeyNeed(server, key_id, at) for server, key_id in sorted(keys_named(pdu))[:MAX_KEYS_TRIED]]


def _verify(pdus: Sequence[Pdu], keys: Sequence[Keys]) -> list[Event]:
    """Verify events one by one; runs on a thread."""
    events: list[Event] = []
    for pdu, of_pdu in zip(pdus, keys, strict=True):
        try:
            events.append(verify_pdu(pdu, of_pdu))
        except MatrixError as error:
            log.debug("an event is left out: {error}", error=error.error)
    return events
