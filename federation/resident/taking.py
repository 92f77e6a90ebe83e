"""Taking in membership events of other servers' users: the second half of the handshakes.

What the path says, what the event says and who sends it must agree, before anything is signed or stored.
A restricted join is countersigned here if its conditions hold, and refused otherwise.

Source: server-server-api.md, send_join, send_leave, send_knock; security F3, F4.
"""

from __future__ import annotations

from attrs import frozen

from federation.own_keys import Identity
from federation.pdus import PduChecker
from federation.ports import ReceivedEvents
from federation.resident.access import RoomAccess
from federation.resident.making import MEMBER, RestrictedJoins
from homeserver.events.heads import RoomHead
from homeserver.events.received import Course
from homeserver.events.stored import Status, StoredEvent
from protocol.checks import parse_pdu
from protocol.errors import Forbidden, InvalidParam, Unavailable
from protocol.events import Event, countersign
from protocol.identifiers import EventID, RoomID, ServerName, UserID, server_of
from protocol.signing import InvalidSignature


@frozen
class Submitted:
    """A membership event handed in: what the path says of it, who sends it, and its JSON."""

    origin: ServerName
    room_id: RoomID
    event_id: EventID
    membership: str
    event: object


@frozen
class Taken:
    """An event taken in: as it was placed, and the room it is in."""

    head: RoomHead
    stored: StoredEvent


@frozen(eq=False)
class Submissions:
    """Takes in events of handshakes."""

    identity: Identity
    access: RoomAccess
    checker: PduChecker
    restricted: RestrictedJoins
    received: ReceivedEvents

    async def take(self, submitted: Submitted) -> Taken:
        """Check an event, place it, and have it passed on to the room.

        Raises:
            Forbidden: it is another server's, badly signed, or refused by the rules.
            InvalidParam, BadJson: it is not the event that the path names.
            NotFound: this server is not in the room.
        """
        head = await self.access.resident(submitted.origin, submitted.room_id)
        event = parse_pdu(submitted.event, head.version).event
        require_purpose(event, submitted)
        countersigned = await self._countersigned(head, event)
        checked = await self._verified(submitted.event if countersigned is None else countersigned.pdu, head)
        outcome = await self.received.receive(
            head.room_nid, checked, origin=submitted.origin, course=Course.OWN
        )
        if outcome.status is None:
            raise Unavailable("The event cannot be placed now")
        if outcome.status is not Status.ACCEPTED or outcome.stored is None:
            raise Forbidden(f"The room refuses the event: {outcome.reason}")
        return Taken(head, outcome.stored)

    async def _countersigned(self, head: RoomHead, event: Event) -> Event | None:
        """Give a restricted join with our signature, if we are who it names and the conditions hold."""
        named = event.content.get("join_authorised_via_users_server")
        if not head.version.restricted_join or event.membership != "join" or named is None:
            return None
        if not isinstance(named, str) or server_of(named) != self.identity.server_name:
            return None
        if UserID(named) not in head.local_members:
            raise Forbidden("The authorising user is not in the room")
        await self.restricted.authorise_remote(head, event.sender)
        return countersign(event, self.identity.server_name, self.identity.key)

    async def _verified(self, raw: object, head: RoomHead) -> Event:
        """Check signatures and hash; a wrong hash means another event than was signed, so it is refused."""
        try:
            event = await self.checker.check(raw, head.version)
        except InvalidSignature as error:
            raise Forbidden(error.error) from None
        if event.hash_mismatch:
            raise InvalidParam("The content hash of the event is wrong")
        return event


def require_purpose(event: Event, submitted: Submitted) -> None:
    """See that an event is the membership event that its path and its sender's server allow.

    Raises InvalidParam where path and event disagree, Forbidden where the sender is of another server.
    """
    agreeing = (
        (event.room_id == submitted.room_id, "room_id: not the room of the path"),
        (event.event_id == submitted.event_id, "event_id: not the event of the path"),
        (event.type == MEMBER, "type: must be m.room.member"),
        (event.membership == submitted.membership, f"content.membership: must be {submitted.membership}"),
        (event.state_key == event.sender, "state_key: must be the sender"),
    )
    for agrees, sentence in agreeing:
        if not agrees:
            raise InvalidParam(sentence)
    if server_of(event.sender) != submitted.origin:
        raise Forbidden("A server may hand in events of its own users alone")
