"""Whose devices a client must look at again, and whose no longer.

Changed: those who share a room with the reader and whose devices or keys changed, or who came to share
one. Left: those who share none any more. Nobody is named whom the reader could not see (security: C1).

Source: client-server-api/modules/end_to_end_encryption.md, "Extensions to /sync".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import orjson
from attrs import frozen

from homeserver.events.nids import Nids
from homeserver.sync.rooms import Section, Shown
from homeserver.sync.session import Session
from homeserver.sync.sources import Personal
from homeserver.sync.states import States
from protocol.identifiers import UserID
from storage import shared_rooms, spans
from storage.database import Database, Transaction
from storage.state_trie import StateRoot, members


@frozen
class DeviceLists:
    """The `device_lists` of an answer."""

    changed: tuple[UserID, ...] = ()
    left: tuple[UserID, ...] = ()

    def to_json(self) -> bytes:
        """Give the object."""
        return orjson.dumps({"changed": self.changed, "left": self.left})


NO_DEVICE_LISTS = DeviceLists()


@frozen(eq=False)
class DeviceListChanges:
    """Finds whose device lists changed for a reader; asks the database only when somebody is concerned."""

    _database: Database
    _nids: Nids
    _states: States

    async def of(self, session: Session, personal: Personal, shown: Sequence[Shown]) -> DeviceLists:
        """Give the device lists of a delta."""
        entered = [each.room.room_nid for each in shown if each.section is Section.JOIN and each.full]
        departed = {each.room.room_nid: each.upto for each in shown if _was_inside(each)}
        if not (personal.devices or personal.movers or entered or departed):
            return NO_DEVICE_LISTS
        changed, left, gone, roots = await self._database.read(
            read_changes, session.user_nid, personal, entered, departed
        )
        names = await self._nids.user_ids(changed | left | gone)
        lost = {names[nid] for nid in left if nid in names}
        if gone:
            lost |= await self._seen({names[nid] for nid in gone if nid in names}, roots)
        known = {names[nid] for nid in changed if nid in names}
        return DeviceLists(tuple(sorted(known)), tuple(sorted(lost - known)))

    async def _seen(self, users: set[UserID], roots: dict[int, bytes]) -> set[UserID]:
        """Keep those who were members when the reader left."""
        states = await self._states.run([(room, members(StateRoot(root))) for room, root in roots.items()])
        seen = {user for state in states for user in state}
        return {user for user in users if user in seen}


def _was_inside(shown: Shown) -> bool:
    """Tell whether the reader left a room from inside."""
    return shown.section is Section.LEAVE and shown.own_only is None


def read_changes(
    tx: Transaction,
    user_nid: int,
    personal: Personal,
    entered: Collection[int],
    departed: dict[int, int],
) -> tuple[set[int], set[int], set[int], dict[int, bytes]]:
    """Read who changed, who left, who may have been left behind, and the states the reader left."""
    moved: dict[int, set[int]] = {}
    for other, room in personal.movers:
        moved.setdefault(other, set()).add(room)
    sharing = shared_rooms.shared(tx, user_nid, list(personal.devices | moved.keys()))
    changed = {other for other in personal.devices if other in sharing or other == user_nid}
    changed |= {other for other, rooms in moved.items() if other in sharing and sharing[other] <= rooms}
    changed |= shared_rooms.only_in(tx, user_nid, list(entered))
    left = {other for other in moved if other not in sharing}
    gone = shared_rooms.only_in(tx, user_nid, list(departed)) if departed else set()
    return changed, left, gone, spans.roots_at(tx, list(departed.items()))
