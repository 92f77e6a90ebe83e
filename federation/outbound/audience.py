"""Who gets an event: the servers in the room before it, and those it is about.

Source: server-server-api.md, "Transactions"; "PDUs"; federation checklist, "Sending".
"""

from __future__ import annotations

from attrs import frozen

from federation.ports import RoomServers
from homeserver.events.stored import StoredEvent
from protocol.events import Event
from protocol.identifiers import ServerName, server_of
from protocol.third_party_invites import third_party_token


@frozen
class Audience:
    """The servers an event goes to: those in the room, and those named by it that are not in the room."""

    members: frozenset[ServerName]
    named: frozenset[ServerName]


@frozen
class Audiences:
    """Finds the audience of each event."""

    own_name: ServerName
    room_servers: RoomServers

    async def of(self, stored: StoredEvent) -> Audience:
        """Give the audience of an event placed here.

        The server of a remote sender is left out: the event came from there. A third-party invite that this
        server has made in the name of another's user did not.
        """
        event = stored.event
        assert stored.root_before is not None
        before = await self.room_servers.at(stored.room_nid, stored.root_before)
        without, sender = {self.own_name}, server_of(event.sender)
        if third_party_token(event.content) is None or sender in event.pdu["signatures"]:
            without.add(sender)
        members = frozenset(before) - without
        return Audience(members, _named(event) - without - members)

    def names_others(self, event: Event) -> bool:
        """Tell whether an event is about users of other servers, without a look at the state."""
        return bool(_named(event) - {self.own_name})

    def follow(self, stored: StoredEvent, after: bytes) -> None:
        """Note the state after an event whose audience was asked for, on which alone the room goes on.

        If it moved nobody of another server, the next event's audience is known without a look at the state.
        """
        event = stored.event
        assert stored.root_before is not None
        if event.type != "m.room.member" or server_of(event.key[1]) == self.own_name:
            self.room_servers.are_the_same(stored.room_nid, stored.root_before, after)

    async def is_member(self, server: ServerName, stored: StoredEvent) -> bool:
        """Tell whether an event goes to `server` as a member of the room."""
        return server in (await self.of(stored)).members


def _named(event: Event) -> frozenset[ServerName]:
    """Give the servers an event is about: whose user it moves, and who authorised a join.

    An invite is left out: its server had it by the invite endpoint, and gets it as a member if it is one.
    """
    if event.type != "m.room.member" or event.state_key is None or event.membership == "invite":
        return frozenset()
    named = {server_of(event.state_key)}
    authoriser = event.content.get("join_authorised_via_users_server")
    if event.membership == "join" and isinstance(authoriser, str) and ":" in authoriser:
        named.add(server_of(authoriser))
    return frozenset(named)
