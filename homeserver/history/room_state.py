"""The state of a room and its members, as far as the asker may look.

Source: client-server-api/rooms.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
from attrs import frozen

from homeserver.history.access import RoomAccess
from homeserver.history.places import place_of
from homeserver.history.presenting import Asker, Presenter
from homeserver.sync.bodies import Bodies
from homeserver.sync.render import ClientEvent
from homeserver.sync.states import States
from homeserver.sync.tokens import FeedToken, HistoryToken
from protocol.errors import NotFound
from storage import client_events
from storage.database import Database, Transaction
from storage.state_trie import EMPTY_ROOT, StateRoot, members
from storage.trie_lookup import Sought, Whole


class _Profile(msgspec.Struct):
    """The profile in a member event; anything may stand in it."""

    displayname: Any = None
    avatar_url: Any = None


_PROFILE = msgspec.json.Decoder(_Profile)


@frozen(eq=False)
class RoomStates:
    """Reads states and members."""

    _database: Database
    _bodies: Bodies
    _states: States
    _access: RoomAccess
    _presenter: Presenter

    async def everything(self, asker: Asker) -> list[bytes]:
        """Give all state events as JSON."""
        room_nid = asker.access.room.nid
        root = await self._access.root(asker.access)
        state = (await self._states.read([Whole(room_nid, root)]))[0]
        found = await self._bodies.get((room_nid, nid) for nid in state.values())
        return await self._presenter.plain(list(found.values()), asker)

    async def one(self, asker: Asker, event_type: str, state_key: str, *, whole: bool) -> bytes:
        """Give the content, or the `whole` event, of one piece of state; raise NotFound."""
        room_nid = asker.access.room.nid
        root = await self._access.root(asker.access)
        key = (event_type, state_key)
        state = (await self._states.find([Sought(room_nid, root, [key])]))[0]
        found = await self._bodies.get((room_nid, nid) for nid in state.values())
        if not found:
            raise NotFound("The room has no such state")
        event = next(iter(found.values()))
        return (await self._presenter.plain([event], asker))[0] if whole else event.content

    async def members(
        self,
        asker: Asker,
        at: FeedToken | HistoryToken | None,
        membership: str | None,
        not_membership: str | None,
    ) -> list[bytes]:
        """Give member events, at a place or the latest, of a membership or not of one (either suffices)."""

        def wanted(event: ClientEvent) -> bool:
            if membership is None and not_membership is None:
                return True
            given = event.membership
            return given == membership or (not_membership is not None and given != not_membership)

        found = await self._members(asker, await self._root_at(asker, at))
        return await self._presenter.plain([event for event in found if wanted(event)], asker)

    async def joined(self, asker: Asker) -> bytes:
        """Give the joined users with their profiles in the room, as the answer of `/joined_members`."""
        found = await self._members(asker, await self._access.root(asker.access))
        parts = [
            orjson.dumps(event.state_key) + b":" + _profile(event)
            for event in found
            if event.membership == "join"
        ]
        return b'{"joined":{%b}}' % b",".join(parts)

    async def _members(self, asker: Asker, root: StateRoot) -> Sequence[ClientEvent]:
        """Give the member events of a state."""
        room_nid = asker.access.room.nid
        state = (await self._states.run([(room_nid, members(root))]))[0]
        found = await self._bodies.get((room_nid, nid) for nid in state.values())
        return list(found.values())

    async def _root_at(self, asker: Asker, at: FeedToken | HistoryToken | None) -> StateRoot:
        """Give the state at a token, never past what the asker may see."""
        if at is None:
            return await self._access.root(asker.access)
        if isinstance(at, FeedToken):
            return await self._access.root(asker.access, at.pos)
        root = await self._database.read(read_root_at, asker, at)
        return StateRoot(root) if root is not None else await self._access.root(asker.access)


def read_root_at(tx: Transaction, asker: Asker, at: HistoryToken) -> bytes | None:
    """Read the state before the first event after a place in history; None: after the last event."""
    room_nid, bound = asker.access.room.nid, asker.access.bound
    depth, nid = place_of(tx, room_nid, at, backwards=False)
    rows = client_events.later(tx, room_nid, (depth, nid - 1), 1)
    if not rows or (bound is not None and (rows[0].depth, rows[0].event_nid) > bound):
        return None
    return rows[0].root_before or EMPTY_ROOT


def _profile(event: ClientEvent) -> bytes:
    """Give the profile in a member event, as far as it is one."""
    profile = _PROFILE.decode(event.content)
    given = {"display_name": profile.displayname, "avatar_url": profile.avatar_url}
    return orjson.dumps({name: value for name, value in given.items() if isinstance(value, str)})
