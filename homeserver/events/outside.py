"""Memberships of local users in rooms this server is not in: invites, knocks, and their end.

The event is kept as an outlier, the user is told through the feed, and what the room looks like is kept as
the other server gave it, believed by nobody.

Source: server-server-api.md, "Inviting to a room", "Knocking upon a room", "Leaving Rooms".
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.events.building import Author, row_of
from homeserver.events.nids import Room
from homeserver.events.received_store import Store
from homeserver.events.relations import NO_RELATION
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import Write
from protocol.canonical_json import JsonObject, decode_own, dumps
from protocol.errors import InvalidParam
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import RoomID, ServerName, UserID, server_of
from protocol.limits import MAX_DEPTH
from protocol.room_versions import RoomVersion
from storage import events, memberships, stripped_states
from storage.feed import Flag, Kind, NewEntry
from storage.memberships import BY_NAME, Membership, MembershipRow
from storage.rows import Rows
from storage.stripped_states import stripped_rows

MEMBER = "m.room.member"


@frozen(eq=False)
class OutsideMemberships:
    """Keeps memberships in rooms this server is not in."""

    store: Store
    author: Author

    async def begin(
        self, version: RoomVersion, event: Event, stripped_state: Sequence[JsonObject], *, now: int
    ) -> None:
        """Keep an invite to or a knock by a local user, and tell the user."""
        if event.membership not in ("invite", "knock"):
            raise InvalidParam("The event is neither an invite nor a knock")
        room = await self.store.nids.intern_room(event.room_id, version)
        user_id = UserID(event.key[1])
        user_nid = (await self.store.nids.users((user_id,)))[user_id]
        shown = stripped_rows(room.nid, user_nid, dumps(list(stripped_state)))
        await self._put(room, event, user_nid, (shown,))

    async def end(self, room_id: RoomID, user_id: UserID, event: Event | None, *, now: int) -> None:
        """Keep that a local user has left; None: no other server has heard of it."""
        room = await self.store.nids.known_room(room_id)
        if room is None:
            return
        user_nid = (await self.store.nids.users((user_id,)))[user_id]
        if await self._membership(room, user_nid) is None:
            return
        await self._put(room, event or self._own_leave(room, user_id, now), user_nid, ())

    async def withdraw(self, room: Room, event: Event) -> bool:
        """End an invite or knock by another server's event, if that server has to do with the room.

        Such are the inviter's server, and the servers of those whom the stripped state names that came with
        the invite or the answer to the knock (senders, members): all that is known here of who is in the
        room. Any other may be anybody. Tells whether it ended.

        Source: server-server-api.md, "Leaving Rooms (Rejecting Invites)".
        """
        if event.type != MEMBER or event.membership not in ("leave", "ban"):
            return False
        user_id = UserID(event.state_key or "")
        if server_of(user_id) != self.author.server_name:
            return False
        user_nid = (await self.store.nids.users((user_id,)))[user_id]
        began = await self._membership(room, user_nid)
        if began is None:
            return False
        shown = await self.store.database.read(stripped_states.of_user, user_nid, [room.nid])
        entitled = set(servers_named(shown.get(room.nid, b"[]")))
        if began.event.membership == "invite":
            entitled.add(server_of(began.event.sender))
        if server_of(event.sender) not in entitled:
            return False
        await self._put(room, event, user_nid, ())
        return True

    async def _membership(self, room: Room, user_nid: int) -> StoredEvent | None:
        """Give the invite or knock that stands."""
        row = await self.store.database.read(memberships.membership_of, room.nid, user_nid)
        if row is None or row.membership not in (Membership.INVITE, Membership.KNOCK):
            return None
        found = await self.store.state.stored.by_nid(room.nid, (row.event_nid,))
        return found.get(row.event_nid)

    async def _put(self, room: Room, event: Event, user_nid: int, rows: tuple[Rows, ...]) -> None:
        known = (await self.store.state.stored.by_id(room.nid, (event.event_id,))).get(event.event_id)
        if known is not None and known.status is Status.REJECTED:
            return
        (incoming,) = await self.store.incoming((event,))
        stored = known or StoredEvent(
            event,
            incoming.nid,
            room.nid,
            Status.OUTLIER,
            None,
            max(0, min(event.depth, MAX_DEPTH)),
            incoming.sender_nid,
        )
        if known is None:
            rows += (events.event_rows(row_of(stored, NO_RELATION, None)),)
        membership = BY_NAME[event.membership or "leave"]
        rows += (
            memberships.membership_rows(MembershipRow(room.nid, user_nid, int(membership), stored.nid, 1)),
        )
        entry = NewEntry(Kind.INVITE, int(Flag.MEMBERSHIP), room.nid, user_nid, stored.nid, payload=stored)
        await self.store.persister.commit(Write(rows, (entry,), size=len(event.raw)))

    def _own_leave(self, room: Room, user_id: UserID, now: int) -> Event:
        """Build a leave that stays here."""
        draft = EventDraft(room.room_id, MEMBER, user_id, {"membership": "leave"}, state_key=user_id)
        author = self.author
        return build_event(
            draft, room.version, Links((), (), 1), now=now, server_name=author.server_name, key=author.key
        )


def servers_named(shown: bytes) -> list[ServerName]:
    """Give the servers of the senders and members in stripped state as it is kept, which has any form."""
    named: dict[ServerName, None] = {}
    events = decode_own(shown)
    for each in events if isinstance(events, list) else ():
        if isinstance(each, dict):
            users = (each.get("sender"), each.get("state_key") if each.get("type") == MEMBER else None)
            named |= {server_of(user): None for user in users if isinstance(user, str) and ":" in user}
    return list(named)
