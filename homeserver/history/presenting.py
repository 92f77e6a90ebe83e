"""From events to what one reader is shown of them: judged, completed, and rendered with `room_id`.

Every history endpoint goes through `visible` and then `render`, so that no endpoint has rules of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from homeserver.history.access import Access
from homeserver.history.aggregations import Aggregations, Viewer
from homeserver.history.visibility import Verdict, Visibility
from homeserver.sync.bodies import Bodies, Name
from homeserver.sync.render import JOINED, PLAIN, ClientEvent, Unsigned, finish
from homeserver.sync.session import Session
from homeserver.sync.state import key_of
from homeserver.sync.states import States
from homeserver.sync.tails import Tails
from protocol.identifiers import UserID
from storage.state_trie import StateRoot
from storage.trie_lookup import Sought


@frozen(eq=False)
class Asker:
    """Who reads a room's history, and when."""

    session: Session
    ignored: frozenset[UserID]
    access: Access
    now: int

    @property
    def viewer(self) -> Viewer:
        """Give the asker as aggregations see one."""
        room = self.access.room
        return Viewer(
            self.session.user_id,
            self.session.user_nid,
            self.ignored,
            {room.nid: self.access.reader},
            self.now,
            {room.nid: room.room_id},
        )

    def ignores(self, event: ClientEvent) -> bool:
        """Tell whether an event is hidden because its sender is ignored; state is never hidden."""
        return event.state_key is None and event.sender in self.ignored


@frozen(eq=False)
class Presenter:
    """Judges and renders events of one room for one asker."""

    _bodies: Bodies
    _states: States
    _visibility: Visibility
    _aggregations: Aggregations
    _tails: Tails

    async def judge(self, events: Sequence[ClientEvent], asker: Asker) -> dict[int, Verdict]:
        """Tell, by nid, which events the asker may see, ignored senders aside."""
        return await self._visibility.judge(events, {asker.access.room.nid: asker.access.reader})

    async def render(
        self, events: Sequence[ClientEvent], verdicts: Mapping[int, Verdict], asker: Asker
    ) -> list[bytes]:
        """Render events that were judged visible."""
        replaced = await self._replaced(events)
        because = await self._bodies.because(events)
        relations = await self._aggregations.bundle(events, asker.viewer)
        ids = await self._tails.transaction_ids(events, asker.session)
        rendered = []
        for event in events:
            name: Name = (event.room_nid, event.nid)
            membership = verdicts[event.nid].membership
            extras = (because.get(name), replaced.get(event.nid), relations.get(name))
            txn_id = ids.get(name)
            unsigned = JOINED
            if membership != "join" or txn_id is not None or any(extras):
                unsigned = Unsigned(*extras, membership == "join", membership, txn_id)
            rendered.append(finish(event, asker.now, unsigned, asker.access.room.room_id))
        return rendered

    async def plain(self, events: Sequence[ClientEvent], asker: Asker) -> list[bytes]:
        """Render state events the asker may see as part of a state, without relations."""
        because = await self._bodies.because(events)
        room_id = asker.access.room.room_id
        return [
            finish(
                event,
                asker.now,
                PLAIN if event.redacted_by is None else Unsigned(because.get((event.room_nid, event.nid))),
                room_id,
            )
            for event in events
        ]

    async def _replaced(self, events: Sequence[ClientEvent]) -> dict[int, ClientEvent]:
        """Give what each state event replaced on its branch, by the event's nid."""
        changed = [event for event in events if event.state_key is not None and event.root_before]
        if not changed:
            return {}
        states = await self._states.find(
            [
                Sought(event.room_nid, StateRoot(event.root_before or b""), [key_of(event)])
                for event in changed
            ]
        )
        pairs = [(event, nid) for event, state in zip(changed, states, strict=True) for nid in state.values()]
        bodies = await self._bodies.get((event.room_nid, nid) for event, nid in pairs)
        return {
            event.nid: bodies[event.room_nid, nid] for event, nid in pairs if (event.room_nid, nid) in bodies
        }
