"""How the parts of history hang together; `app.py`, tests and bench call it, so that all have the same."""

from __future__ import annotations

from attrs import frozen

from homeserver.history.access import RoomAccess
from homeserver.history.messages import Backfill, Messages
from homeserver.history.presenting import Asker, Presenter
from homeserver.history.relations import Relations
from homeserver.history.room_state import RoomStates
from homeserver.history.single_events import SingleEvents
from homeserver.sync.session import Session
from homeserver.sync.suppliers import IgnoredUsers
from homeserver.sync.tails import Tails
from homeserver.sync.wiring import Core, Readers
from protocol.identifiers import RoomID


@frozen(eq=False)
class Askers:
    """Makes askers: who reads which room, and how far."""

    access: RoomAccess
    ignored: IgnoredUsers

    async def of(self, session: Session, room_id: RoomID, now: int) -> Asker:
        """Give an asker; raise Forbidden for a room the user may not look into."""
        access = await self.access.of(session, room_id)
        return Asker(session, await self.ignored.of(session.user_nid), access, now)


@frozen(eq=False)
class History:
    """What history endpoints are served by."""

    askers: Askers
    messages: Messages
    events: SingleEvents
    relations: Relations
    states: RoomStates


def make_history(
    core: Core, readers: Readers, ignored: IgnoredUsers, backfill: Backfill | None = None
) -> History:
    """Build the services of history; without `backfill` no other server is asked."""
    database, bodies, states = core.database, readers.bodies, readers.states
    access = RoomAccess(database, core.feed, core.nids, readers.rooms, bodies, states)
    tails = Tails(database, readers.aggregations)
    presenter = Presenter(bodies, states, readers.visibility, readers.aggregations, tails)
    messages = Messages(readers.hop, backfill)
    events = SingleEvents(database, bodies, states, presenter, messages)
    return History(
        Askers(access, ignored),
        messages,
        events,
        Relations(database, bodies, presenter, events),
        RoomStates(database, bodies, states, access, presenter),
    )
