"""What a difference of two resolved states means for members and servers: rows, and counts in memory.

The tables `memberships` and `room_servers` follow the resolved state through here, whatever event or
resolution moved it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, frozen

from homeserver.events.stored import StoredEvent
from protocol.identifiers import ServerName, StateKey, UserID, server_of
from storage import memberships
from storage.memberships import BY_NAME, Membership, MembershipRow, ServerRow
from storage.rows import Rows

StatePair = tuple[StoredEvent | None, StoredEvent | None]
"""A state event before and after."""


@frozen
class MemberChange:
    """One user's membership, before and after."""

    user_id: UserID
    user_nid: int
    server: ServerName
    is_local: bool
    before: Membership
    after: Membership
    event_nid: int
    """The member event after; if the state has none any more, the one before."""

    @property
    def joined(self) -> int:
        """Give the change to the number of joined members: -1, 0 or 1."""
        return (self.after is Membership.JOIN) - (self.before is Membership.JOIN)


def membership_of(stored: StoredEvent | None) -> Membership:
    """Give the membership that a member event sets; none is LEAVE."""
    return (
        Membership.LEAVE if stored is None else BY_NAME.get(stored.event.membership or "", Membership.LEAVE)
    )


def changes_between(
    pairs: Mapping[StateKey, StatePair], users: Mapping[UserID, int], server_name: ServerName
) -> list[MemberChange]:
    """Tell what differing member events mean; `users` has the nid of each of their state keys."""
    changes: list[MemberChange] = []
    for (event_type, state_key), (before, after) in pairs.items():
        event = after or before
        if event_type != "m.room.member" or event is None:
            continue
        user_id = UserID(state_key)
        server = server_of(user_id)
        changes.append(
            MemberChange(
                user_id,
                users[user_id],
                server,
                server == server_name,
                membership_of(before),
                membership_of(after),
                event.nid,
            )
        )
    return changes


def member_rows(room_nid: int, changes: Iterable[MemberChange]) -> tuple[Rows, ...]:
    """Give the rows that let both tables follow."""
    rows = [
        MembershipRow(room_nid, each.user_nid, int(each.after), each.event_nid, int(each.is_local))
        for each in changes
    ]
    servers = [
        ServerRow(room_nid, each.server, joined, each.event_nid)
        for each in changes
        if (joined := each.joined) != 0
    ]
    given = (memberships.membership_rows(*rows),) if rows else ()
    return (*given, memberships.server_rows(*servers)) if servers else given


@define(eq=False)
class Members:
    """Who is joined: this server's users with their nids, and every server with its number of members."""

    local: dict[UserID, int]
    servers: dict[ServerName, int]

    def apply(self, changes: Iterable[MemberChange]) -> None:
        """Follow changes that are committed."""
        for change in changes:
            if change.joined:
                count = self.servers.get(change.server, 0) + change.joined
                if count > 0:
                    self.servers[change.server] = count
                else:
                    self.servers.pop(change.server, None)
            if change.is_local and change.after is Membership.JOIN:
                self.local[change.user_id] = change.user_nid
            elif change.is_local:
                self.local.pop(change.user_id, None)
