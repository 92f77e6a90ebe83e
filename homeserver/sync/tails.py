"""What the tails of timeline events say to one reader: own transaction IDs, relations, and raw PDUs.

Nothing here is shared: transaction IDs go to the sending device alone, relations leave out whom the
reader ignores and tell whether the reader took part in a thread (security: C6).

Source: client-server-api/_index.md, "Transaction identifiers", "Aggregations of child events".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from homeserver.history.aggregations import Aggregations, Viewer
from homeserver.history.visibility import Reader
from homeserver.sync.bodies import Name, read_rows, render_pdus
from homeserver.sync.joined import RoomContent
from homeserver.sync.recipient import Recipient
from homeserver.sync.render import ClientEvent
from homeserver.sync.room_bytes import Extras
from homeserver.sync.session import Session
from storage import client_events
from storage.database import Database


@frozen(eq=False)
class Tails:
    """Finds what is the reader's own in timelines."""

    _database: Database
    _aggregations: Aggregations

    async def of(
        self, contents: Mapping[int, RoomContent], readers: Mapping[int, Reader], to: Recipient
    ) -> dict[int, Extras]:
        """Give the extras of rooms that have any, by room nid."""
        events = [event for content in contents.values() for event in content.timeline.events]
        ids = await self.transaction_ids(events, to.session)
        relations = await self._relations(contents, readers, to)
        pdus = await self._pdus(contents, to) if to.options.filter.federation_format else {}
        found: dict[int, Extras] = {}
        for room_nid, content in contents.items():
            nids = [event.nid for event in content.timeline.events]
            own = {nid: ids[room_nid, nid] for nid in nids if (room_nid, nid) in ids}
            related = {nid: relations[room_nid, nid] for nid in nids if (room_nid, nid) in relations}
            if own or related or pdus:
                found[room_nid] = Extras(own, related, pdus)
        return found

    async def transaction_ids(self, events: Sequence[ClientEvent], session: Session) -> dict[Name, str]:
        """Give the transaction IDs of those events that this very device sent."""
        own = [(event.room_nid, event.nid) for event in events if event.sender == session.user_id]
        if not own:
            return {}
        return await self._database.read(
            client_events.transaction_ids, session.user_nid, session.device_id, own
        )

    async def _relations(
        self, contents: Mapping[int, RoomContent], readers: Mapping[int, Reader], to: Recipient
    ) -> dict[Name, bytes]:
        """Bundle relations with the events of limited timelines."""
        events = [
            event
            for content in contents.values()
            if content.timeline.limited
            for event in content.timeline.events
        ]
        viewer = Viewer(to.session.user_id, to.session.user_nid, to.ignored, readers, to.now)
        return await self._aggregations.bundle(events, viewer) if events else {}

    async def _pdus(self, contents: Mapping[int, RoomContent], to: Recipient) -> dict[Name, ClientEvent]:
        """Give the events in the format of federation."""
        events = [
            event for content in contents.values() for event in (*content.timeline.events, *content.state)
        ]
        rows, versions = await self._database.read(
            read_rows, list({(event.room_nid, event.nid) for event in events})
        )
        return {(event.room_nid, event.nid): event for event in render_pdus(rows, versions)}
