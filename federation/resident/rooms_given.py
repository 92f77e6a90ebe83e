"""The room as it is given to a server that has just joined: the state before the join and its auth chain.

All members are given, whatever was asked for: leaving some out is an offer, not a duty.

Source: server-server-api.md, send_join; data/api/server-server/joins-v2.yaml.
"""

from __future__ import annotations

from attrs import frozen

from federation.ports import AuthChains
from federation.resident.taking import Taken
from homeserver.events.room_state import RoomState
from protocol.canonical_json import dumps
from protocol.identifiers import EventID, ServerName


@frozen(eq=False)
class JoinedRooms:
    """Describes rooms to those who joined them."""

    own_name: ServerName
    state: RoomState
    chains: AuthChains

    async def describe(self, taken: Taken) -> bytes:
        """Give the JSON of the answer to send_join, joined from the bytes of the events."""
        stored = taken.stored
        assert stored.root_before is not None
        state = await self.state.all_events(stored.room_nid, stored.root_before)
        state_ids = [one.event.event_id for one in state.values()]
        wanted: list[EventID] = [*state_ids, stored.event.event_id]
        chain = await self.chains.chain(stored.room_nid, wanted)
        servers = [server for server, members in taken.head.servers.items() if members]
        return b'{"event":%b,"state":[%b],"auth_chain":[%b],"members_omitted":false,%b' % (
            stored.event.raw,
            b",".join(one.event.raw for one in state.values()),
            b",".join(event.raw for event in chain),
            dumps({"origin": self.own_name, "servers_in_room": servers})[1:],
        )
