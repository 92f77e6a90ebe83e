"""Read the state of a room at a root: keys, whole types, all of it, or the difference of two roots.

A facade over the state trie and the event store; every call names the room, since a root means nothing
outside its room. A look-up whose nodes and events are in memory waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from homeserver.events.event_store import Events
from homeserver.events.stored import StoredEvent
from protocol.identifiers import StateKey
from storage import state_trie
from storage.state_trie import Applied, Difference, StateRoot
from storage.trie_nodes import NodeCache, TrieReader


@frozen(eq=False)
class RoomState:
    """State look-ups."""

    tries: TrieReader
    stored: Events

    @property
    def nodes(self) -> NodeCache:
        """Give the cache of nodes, where those of a commit under way are held."""
        return self.tries.cache

    async def get(self, room_nid: int, root: bytes, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """Give the event nids under `keys`; keys without state are absent."""
        return await self.tries.run(room_nid, state_trie.find(StateRoot(root), keys))

    async def all(self, room_nid: int, root: bytes) -> dict[StateKey, int]:
        """Give the whole state, as event nids."""
        return await self.tries.run(room_nid, state_trie.all_entries(StateRoot(root)))

    async def all_but_members(self, room_nid: int, root: bytes) -> dict[StateKey, int]:
        """Give the state without member events, as event nids."""
        return await self.tries.run(room_nid, state_trie.all_except_type(StateRoot(root), "m.room.member"))

    async def members(self, room_nid: int, root: bytes) -> dict[str, int]:
        """Give the nids of all member events, by user ID."""
        return await self.tries.run(room_nid, state_trie.members(StateRoot(root)))

    async def of_type(self, room_nid: int, root: bytes, event_type: str) -> dict[str, int]:
        """Give the event nids of one type, by state key."""
        return await self.tries.run(room_nid, state_trie.entries_of_type(StateRoot(root), event_type))

    async def diff(self, room_nid: int, one: bytes, other: bytes) -> Difference:
        """Give what differs between two states, as event nids."""
        return await self.tries.run(room_nid, state_trie.diff(StateRoot(one), StateRoot(other)))

    async def apply(self, room_nid: int, root: bytes, changes: Mapping[StateKey, int | None]) -> Applied:
        """Make the root of a changed state; its nodes are stored by whoever commits it."""
        return await self.tries.run(room_nid, state_trie.apply(room_nid, StateRoot(root), changes))

    async def events(
        self, room_nid: int, root: bytes, keys: Iterable[StateKey]
    ) -> dict[StateKey, StoredEvent]:
        """Give the events under `keys`; keys without state are absent."""
        nids = await self.get(room_nid, root, keys)
        found = await self.stored.by_nid(room_nid, nids.values())
        return {key: found[nid] for key, nid in nids.items()}

    async def all_events(self, room_nid: int, root: bytes) -> dict[StateKey, StoredEvent]:
        """Give the whole state, as events."""
        nids = await self.all(room_nid, root)
        found = await self.stored.by_nid(room_nid, nids.values())
        return {key: found[nid] for key, nid in nids.items()}
