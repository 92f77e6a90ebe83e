"""The room as it is given to a server that has just joined: the state before the join and its auth chain.

All members are given, whatever was asked for: leaving some out is an offer, not a duty. The answer is made
while it goes out, so a room of any size holds nobody up.

Source: server-server-api.md, send_join; data/api/server-server/joins-v2.yaml; security D7.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from attrs import frozen

from federation.ports import AuthChains
from federation.resident.taking import Taken
from homeserver.events.room_state import RoomState
from homeserver.events.texts import EventTexts
from protocol.canonical_json import dumps
from protocol.identifiers import ServerName


@frozen(eq=False)
class JoinedRooms:
    """Describes rooms to those who joined them."""

    own_name: ServerName
    state: RoomState
    chains: AuthChains
    texts: EventTexts

    async def describe(self, taken: Taken) -> AsyncIterator[bytes]:
        """Give the JSON of the answer to send_join, in parts."""
        stored = taken.stored
        assert stored.root_before is not None
        room_nid = stored.room_nid
        state = list((await self.state.all(room_nid, stored.root_before)).values())
        chain = await self.chains.of_state(room_nid, [*state, stored.nid])
        yield b'{"event":%b,"state":' % stored.event.raw
        async for part in self.texts.listed(room_nid, state):
            yield part
        yield b',"auth_chain":'
        async for part in self.texts.listed(room_nid, chain):
            yield part
        servers = [server for server, members in taken.head.servers.items() if members]
        yield b',"members_omitted":false,' + dumps({"origin": self.own_name, "servers_in_room": servers})[1:]
