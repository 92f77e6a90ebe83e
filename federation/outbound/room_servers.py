"""Which servers are in a room at a state: the head's count, corrected by what differs.

The state before an event is nearly always that of the head or a step away from it, so that the difference
of two tries is all there is to read.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from attrs import define, field

from homeserver.events.event_store import Events
from homeserver.events.heads import Heads
from homeserver.events.room_state import RoomState
from protocol.errors import NotFound
from protocol.identifiers import ServerName, server_of

MEMBER = "m.room.member"
MAX_KNOWN = 2_000
"""States whose servers are remembered."""
CHUNK = 500
"""Member events loaded at once where there is no head to start from."""


@define(eq=False)
class ServersAtState:
    """Finds the servers in rooms."""

    heads: Heads
    state: RoomState
    events: Events
    _known: OrderedDict[tuple[int, bytes], frozenset[ServerName]] = field(factory=OrderedDict, init=False)

    async def at(self, room_nid: int, root: bytes) -> frozenset[ServerName]:
        """Give the servers with a joined member in the state with this root."""
        known = self._known.get((room_nid, root))
        if known is not None:
            self._known.move_to_end((room_nid, root))
            return known
        counts = await self._count(room_nid, root)
        servers = frozenset(server for server, members in counts.items() if members > 0)
        self._remember(room_nid, root, servers)
        return servers

    def are_the_same(self, room_nid: int, before: bytes, after: bytes) -> None:
        """Note that the servers of a state, if they are known, are those of another too."""
        known = self._known.get((room_nid, before))
        if known is not None:
            self._remember(room_nid, after, known)

    def _remember(self, room_nid: int, root: bytes, servers: frozenset[ServerName]) -> None:
        self._known[room_nid, root] = servers
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def _count(self, room_nid: int, root: bytes) -> Counter[ServerName]:
        """Count the members of each server, from the head if there is one."""
        try:
            head = await self.heads.get(room_nid)
        except NotFound:
            return await self._count_all(room_nid, root)
        start, counts = head.root, Counter(head.servers)
        if start != root:
            differences = await self.state.diff(room_nid, start, root)
            members = {key[1]: nids for key, nids in differences.items() if key[0] == MEMBER}
            counts.subtract(await self._joined(room_nid, ((user, nids[0]) for user, nids in members.items())))
            counts.update(await self._joined(room_nid, ((user, nids[1]) for user, nids in members.items())))
        return counts

    async def _count_all(self, room_nid: int, root: bytes) -> Counter[ServerName]:
        return await self._joined(room_nid, (await self.state.members(room_nid, root)).items())

    async def _joined(self, room_nid: int, members: Iterable[tuple[str, int | None]]) -> Counter[ServerName]:
        """Count, by server, the users whose member event says that they are joined."""
        found = [(user, nid) for user, nid in members if nid is not None]
        counts: Counter[ServerName] = Counter()
        for start in range(0, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            events = await self.events.by_nid(room_nid, [nid for _, nid in chunk])
            counts.update(
                server_of(user)
                for user, nid in chunk
                if nid in events and events[nid].event.membership == "join"
            )
        return counts
