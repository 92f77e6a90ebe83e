"""How far a user may look into a room: as a member, as one who left, or through open windows.

A member sees the present; one who left sees what there was up to the own leave and nothing later
(security: C1); anybody sees a room whose history is world-readable. To all others a room that exists and
one that does not look alike (security: C2).

Source: client-server-api/modules/history_visibility.md.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.events.nids import Nids, Room
from homeserver.history.visibility import Reader, visibility_of
from homeserver.sync.bodies import Bodies
from homeserver.sync.memberships import UserRoom, UserRooms
from homeserver.sync.rooms import Change, Section, shown_since
from homeserver.sync.session import Session
from homeserver.sync.states import States
from homeserver.sync.tokens import Positions
from protocol.errors import Forbidden
from protocol.identifiers import RoomID
from protocol.visibility import VISIBILITY_KEY
from storage import spans
from storage.client_events import Place
from storage.database import Database
from storage.memberships import Membership
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_lookup import Sought

MAX_OWN_CHANGES = 200
_NOT_HERE = "You are not a member of this room, and its history is not open to everybody"


@frozen(eq=False)
class Access:
    """A room as far as one user may look into it."""

    room: Room
    reader: Reader
    upto: int
    """The feed position up to which the user may look."""
    joined: bool
    bound: Place | None = None
    """The place in history after which there is nothing for the user; None: no bound."""


@frozen(eq=False)
class RoomAccess:
    """Tells how far users may look into rooms."""

    _database: Database
    _feed: Positions
    _nids: Nids
    _rooms: UserRooms
    _bodies: Bodies
    _states: States

    async def of(self, session: Session, room_id: RoomID) -> Access:
        """Give a user's access to a room; raise Forbidden if there is none."""
        room = await self._nids.known_room(room_id)
        if room is None:
            raise Forbidden(_NOT_HERE)
        mine = (await self._rooms.of(session.user_nid)).get(room.nid)
        upto = self._feed.position
        if mine is not None and mine.membership is Membership.JOIN:
            return Access(room, Reader(session.user_id, joined=True), upto, True)
        departed = None
        if mine is not None and not mine.forgotten:
            departed = await self._departed(session, room, mine, upto)
        if await self._is_open(room.nid, upto):
            reader = Reader(session.user_id) if departed is None else departed.reader
            return Access(room, reader, upto, False)
        if departed is None:
            raise Forbidden(_NOT_HERE)
        return departed

    async def joined(self, session: Session, room_id: RoomID) -> Access:
        """Give the access of a member; raise Forbidden for everybody else."""
        access = await self.of(session, room_id)
        if not access.joined:
            raise Forbidden("You are not in this room")
        return access

    async def root(self, access: Access, pos: int | None = None) -> StateRoot:
        """Give the state the user may see: at a feed position, or the latest; never past the bound."""
        at = access.upto if pos is None else min(pos, access.upto)
        found = await self._database.read(spans.roots_at, [(access.room.nid, at)])
        return StateRoot(found.get(access.room.nid, EMPTY_ROOT))

    async def _departed(self, session: Session, room: Room, mine: UserRoom, upto: int) -> Access | None:
        """Give the access of one who was inside, up to the own leave; None for one who never was."""
        entries = await self._database.read(
            spans.own_in_room, session.user_nid, room.nid, upto, MAX_OWN_CHANGES
        )
        bodies = await self._bodies.get((room.nid, entry.ref) for entry in entries if entry.ref is not None)
        changes = [
            Change(entry, body.membership or "leave")
            for entry in entries
            if (body := bodies.get((room.nid, entry.ref or 0))) is not None
        ]
        away = UserRoom(room.nid, room.room_id, Membership.LEAVE, mine.event_nid, False)
        shown = shown_since(away, 0, upto, "leave", changes)
        if shown is None or shown.section is not Section.LEAVE or shown.own_only is not None:
            return None
        leave = next(change.entry for change in changes if change.entry.pos == shown.upto)
        body = bodies[room.nid, leave.ref or 0]
        place = (body.depth, body.nid)
        return Access(room, Reader(session.user_id, departure=place), shown.upto, False, place)

    async def _is_open(self, room_nid: int, upto: int) -> bool:
        """Tell whether the room's history is world-readable at present."""
        roots = await self._database.read(spans.roots_at, [(room_nid, upto)])
        root = StateRoot(roots.get(room_nid, EMPTY_ROOT))
        state = (await self._states.find([Sought(room_nid, root, [VISIBILITY_KEY])]))[0]
        if VISIBILITY_KEY not in state:
            return False
        found = await self._bodies.get([(room_nid, state[VISIBILITY_KEY])])
        return visibility_of(found.get((room_nid, state[VISIBILITY_KEY]))) == "world_readable"
