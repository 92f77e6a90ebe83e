"""Leaving a room this server is not in: rejecting an invite, taking back a knock.

The user has left whether or not the other server answers: what cannot be told is kept here alone.

Source: server-server-api.md, "Leaving Rooms (Rejecting Invites)".
"""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom

from attrs import frozen
from twisted.logger import Logger

from federation.asking import TemplateRefused, in_order, make_through
from federation.handshakes import Handshakes
from federation.own_keys import Identity
from federation.ports import OutsideMemberships
from federation.templates import Wish, build_from
from homeserver.clock import Clock
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import ServerName

log = Logger()


@frozen
class Leaving:
    """Leaves rooms through other servers."""

    identity: Identity
    handshakes: Handshakes
    outside: OutsideMemberships
    clock: Clock
    random: SystemRandom

    async def leave(self, wish: Wish, via: Sequence[ServerName]) -> None:
        """Leave; told to a server in the room if one answers, and kept here in any case."""
        leave: Event | None = None
        try:
            servers = in_order(via, self.identity.server_name, self.random)
            template = await make_through(self.handshakes, self.clock, servers, wish)
            leave = build_from(template, wish, self.identity, self.clock.now_ms())
            await self.handshakes.send_leave(template.server, leave)
        except (TemplateRefused, MatrixError) as error:
            log.info("left {room} without telling it: {error}", room=wish.room_id, error=str(error))
        await self.outside.end(wish.room_id, wish.user_id, leave, now=self.clock.now_ms())
