"""Joining a room through another server.

Templates are asked of several servers with a small stagger, since one that does not answer must not cost
the user half a minute; the join itself is handed to one server after another.

Source: server-server-api.md, "Joining Rooms".
"""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom

from attrs import define, field, frozen

from federation.asking import SendRefused, TemplateRefused, in_order, make_through, told
from federation.failures import BadAnswer
from federation.handshakes import Handshakes, JoinAnswer
from federation.own_keys import Identity
from federation.ports import ReceivedEvents, RoomImports
from federation.templates import Template, Wish, build_from
from homeserver.clock import Clock
from homeserver.events.nids import Nids
from homeserver.events.received import ImportedRoom
from homeserver.events.stored import Status
from homeserver.single_flight import SingleFlight
from protocol.auth_rules import check_auth
from protocol.errors import Forbidden, MatrixError, NotFound
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, UserID

DEADLINE = 300_000
"""Milliseconds after which no further server is tried."""

CREATE = ("m.room.create", "")


@frozen
class Arrivals:
    """Takes in rooms that a local user has joined, and joins of rooms that are here already."""

    imports: RoomImports
    received: ReceivedEvents
    nids: Nids

    async def take(self, room: ImportedRoom) -> int:
        """Take the room over, or place the join in it; gives the room's nid."""
        if not await self.imports.is_here(room):
            taken = await self.imports.take(room)
            if taken is not None:
                return taken
        room_nid = await self.nids.room(room.room_id)
        assert room_nid is not None
        outcome = await self.received.receive(room_nid, room.join, origin=room.resident)
        if outcome.status is not Status.ACCEPTED:
            raise Forbidden(f"The room refuses the join: {outcome.reason}")
        return room_nid


@define
class Joining:
    """Joins rooms through other servers; one join at a time for each user and room."""

    identity: Identity
    handshakes: Handshakes
    arrivals: Arrivals
    clock: Clock
    random: SystemRandom
    _under_way: SingleFlight[tuple[RoomID, UserID], int] = field(factory=SingleFlight, init=False)

    async def join(self, wish: Wish, via: Sequence[ServerName]) -> int:
        """Join, and give the nid of the room, which is then known here.

        Raises what the last server answered, where it may be told; NotFound without servers to ask.
        """
        return await self._under_way.run((wish.room_id, wish.user_id), lambda: self._join(wish, via))

    async def _join(self, wish: Wish, via: Sequence[ServerName]) -> int:
        """Try servers until one lets us in."""
        servers = in_order(via, self.identity.server_name, self.random)
        failure: MatrixError = NotFound("No server is known that is in this room")
        deadline = self.clock.now_ms() + DEADLINE
        while servers and self.clock.now_ms() < deadline:
            try:
                template = await make_through(self.handshakes, self.clock, servers, wish)
                return await self._through(template, wish)
            except TemplateRefused as refused:
                raise told(refused.reason) from None
            except SendRefused as refused:
                failure = refused.reason
                servers = [server for server in servers if server != refused.server]
        raise told(failure)

    async def _through(self, template: Template, wish: Wish) -> int:
        """Join through the server of a template."""
        now = self.clock.now_ms()
        try:
            join = build_from(template, wish, self.identity, now)
            answer = await self.handshakes.send_join(template.server, join)
            return await self.arrivals.take(_checked_room(template, answer))
        except MatrixError as error:
            raise SendRefused(template.server, error) from error


def _checked_room(template: Template, answer: JoinAnswer) -> ImportedRoom:
    """See that the answer describes the room we joined, and that our join passes in it; raises BadAnswer."""
    server, join = template.server, answer.join
    state = {event.key: event for event in answer.state if event.is_state}
    create = state.get(CREATE) or _create_in(answer.auth_chain)
    if create is None or create.event_id not in {event.event_id for event in answer.state}:
        raise BadAnswer(server, "a room without its create event")
    stated = create.content.get("room_version", "1")
    if stated != template.version.id:
        raise BadAnswer(server, "a room of another version than was promised")
    try:
        check_auth(join, state)
    except MatrixError:
        raise BadAnswer(server, "a room that does not allow our join") from None
    return ImportedRoom(
        template.version,
        join.room_id,
        create,
        join,
        answer.state,
        answer.auth_chain,
        server,
        answer.servers,
    )


def _create_in(events: Sequence[Event]) -> Event | None:
    return next((event for event in events if event.type == CREATE[0] and event.state_key == ""), None)
