"""Read receipts: set by local users, told by other servers, given to sync.

Source: client-server-api/modules/receipts.md; server-server-api.md, "Receipts".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import Factory, frozen

from homeserver.ephemeral.typing import SendEdu
from homeserver.events.event_store import Events
from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.relations import relation_of
from homeserver.events.stored import StoredEvent
from homeserver.events.write import Write
from homeserver.sync.suppliers import Receipt
from homeserver.turns import Turns
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, InvalidParam, NotFound
from protocol.identifiers import EventID, RoomID, ServerName, UserID, server_of
from storage import receipts
from storage.database import Database
from storage.feed import Kind, NewEntry
from storage.receipts import ReceiptRow

READ: Final = "m.read"
READ_PRIVATE: Final = "m.read.private"
KINDS: Final = (READ, READ_PRIVATE)
MAIN: Final = "main"


@frozen
class Mark:
    """How far someone has read: an event, of a thread (`main` is one too) or of the whole room."""

    kind: str
    event_id: EventID
    thread: str | None = None


@frozen(eq=False)
class ReadReceipts:
    """Receipts of local and remote users."""

    server_name: ServerName
    database: Database
    persister: Persister
    heads: Heads
    events: Events
    nids: Nids
    send_edu: SendEdu
    _turns: Turns[tuple[int, int, str, str]] = Factory(Turns)

    async def set_local(self, user_id: UserID, room_id: RoomID, mark: Mark, now: int) -> None:
        """Set a local user's receipt.

        Raises:
            Forbidden: the user is not in the room.
            NotFound: the event is not of the room.
            InvalidParam: no receipt of this kind, or a thread that the event is not of.
        """
        if mark.kind not in KINDS:
            raise InvalidParam(f"receiptType: must be one of {', '.join(KINDS)}")
        if mark.thread == "":
            raise InvalidParam("thread_id: may not be empty")
        head = await self._head(room_id)
        if user_id not in head.local_members:
            raise Forbidden("You are not in this room")
        event = (await self.events.by_id(head.room_nid, (mark.event_id,))).get(mark.event_id)
        if event is None:
            raise NotFound("There is no such event in this room")
        if mark.thread is not None and not _is_in_thread(event, mark.thread):
            raise InvalidParam("thread_id: the event is not of this thread")
        if await self._put(head, user_id, mark, now) and mark.kind == READ:
            self._tell_servers(head, user_id, mark, now)

    async def set_remote(
        self, origin: ServerName, room_id: RoomID, user_id: UserID, mark: Mark, ts: int
    ) -> None:
        """Set a receipt of another server's own user; others' users and non-members are passed over."""
        room_nid = await self.nids.room(room_id)
        if room_nid is None or server_of(user_id) != origin or mark.kind != READ:
            return
        head = await self.heads.get(room_nid)
        key = ("m.room.member", user_id)
        member = (await head.state([key])).get(key)
        if member is not None and member.membership == "join" and head.local_members:
            await self._put(head, user_id, mark, ts)

    async def of(self, wanted: Mapping[int, frozenset[int] | None]) -> Mapping[int, Sequence[Receipt]]:
        """Give the receipts with these numbers, by room nid, without replaced ones; None: all of the room."""
        if not wanted:
            return {}
        whole = [room_nid for room_nid, nids in wanted.items() if nids is None]
        single = sorted({nid for nids in wanted.values() if nids is not None for nid in nids})
        rows: list[ReceiptRow] = []
        if whole:
            rows += await self.database.read(receipts.of_rooms, whole)
        if single:
            rows += await self.database.read(receipts.by_nids, single)
        users = await self.nids.user_ids({row.user_nid for row in rows})
        found: dict[int, list[Receipt]] = {}
        for row in sorted(rows, key=lambda row: row.receipt_nid):
            if row.room_nid in wanted and row.user_nid in users:
                found.setdefault(row.room_nid, []).append(_receipt(row, users[row.user_nid]))
        return found

    async def _head(self, room_id: RoomID) -> RoomHead:
        room_nid = await self.nids.room(room_id)
        if room_nid is None:
            raise Forbidden("You are not in this room")
        return await self.heads.get(room_nid)

    async def _put(self, head: RoomHead, user_id: UserID, mark: Mark, ts: int) -> bool:
        """Write a receipt; False if it says nothing new, or would go back (devices race each other)."""
        user_nid = await self.nids.user(user_id)
        key = (head.room_nid, user_nid, mark.kind, mark.thread or "")
        await self._turns.take(key)
        try:
            present = await self.database.read(receipts.one, *key)
            present_id = None if present is None else EventID(present.event_id)
            if present_id is not None and not await self._is_further(head.room_nid, mark, present_id):
                return False
            await self.nids.receipts.ready(1)
            nid = self.nids.receipts.take()
            entry = NewEntry(Kind.RECEIPT, room_nid=head.room_nid, user_nid=user_nid, ref=nid)
            row = ReceiptRow(*key, nid, mark.event_id, ts)
            await self.persister.commit(Write((receipts.receipt_rows(row),), (entry,)))
            return True
        finally:
            self._turns.give(key)

    async def _is_further(self, room_nid: int, mark: Mark, present: EventID) -> bool:
        """Tell whether a receipt moves forward; of an event that is not here yet nobody knows."""
        if mark.event_id == present:
            return False
        found = await self.events.by_id(room_nid, (mark.event_id, present))
        places = [(found[each].depth, found[each].nid) for each in (mark.event_id, present) if each in found]
        return len(places) < 2 or places[0] > places[1]

    def _tell_servers(self, head: RoomHead, user_id: UserID, mark: Mark, ts: int) -> None:
        others = [server for server in head.servers if server != self.server_name]
        data: JsonObject = {"ts": ts}
        if mark.thread is not None:
            data["thread_id"] = mark.thread
        content: JsonObject = {head.room_id: {READ: {user_id: {"data": data, "event_ids": [mark.event_id]}}}}
        self.send_edu(others, "m.receipt", ("receipt", head.room_id, user_id, mark.thread), content)


def _receipt(row: ReceiptRow, user_id: UserID) -> Receipt:
    return Receipt(row.receipt_nid, EventID(row.event_id), row.kind, user_id, row.thread or None, row.ts)


def _is_in_thread(stored: StoredEvent, thread: str) -> bool:
    """Tell whether an event is of a thread; its root, and what relates to that, are of the main one too."""
    relation = relation_of(stored.event.content)
    if thread == MAIN:
        return not relation.is_thread
    return thread in (stored.thread, stored.event.event_id, relation.relates_to)
