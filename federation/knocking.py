"""Knocking on a room this server is not in.

Source: server-server-api.md, "Knocking upon a room".
"""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom

from attrs import frozen

from federation.asking import TemplateRefused, in_order, make_through, told
from federation.handshakes import Handshakes
from federation.own_keys import Identity
from federation.ports import OutsideMemberships
from federation.stripped import stripped_of
from federation.templates import Wish, build_from
from homeserver.clock import Clock
from protocol.errors import Forbidden, MatrixError
from protocol.identifiers import ServerName


@frozen
class Knocking:
    """Knocks on rooms through other servers."""

    identity: Identity
    handshakes: Handshakes
    outside: OutsideMemberships
    clock: Clock
    random: SystemRandom

    async def knock(self, wish: Wish, via: Sequence[ServerName]) -> None:
        """Knock, and keep what the room shows of itself; raises what may be told of a refusal."""
        servers = in_order(via, self.identity.server_name, self.random)
        try:
            template = await make_through(self.handshakes, self.clock, servers, wish)
            if not template.version.knock:
                raise Forbidden("This room's version knows no knocking")
            knock = build_from(template, wish, self.identity, self.clock.now_ms())
            shown = await self.handshakes.send_knock(template.server, knock)
        except TemplateRefused as refused:
            raise told(refused.reason) from None
        except MatrixError as error:
            raise told(error) from None
        stripped = stripped_of(shown)
        await self.outside.begin(template.version, knock, stripped, now=self.clock.now_ms())
