"""The session feed: what changed for a session since a token. `/sync` and the WebSocket both ask here.

Fast where the ring reaches back to the token (no query when nothing concerns the session), else from the
database; one algorithm over either. A position is taken once, and all parts speak of that moment.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, frozen

from homeserver.feed.tail import Feed
from homeserver.sync.delta import Delta
from homeserver.sync.device_lists import NO_DEVICE_LISTS
from homeserver.sync.live import LiveRoom, LiveRooms
from homeserver.sync.memberships import UserRoom, UserRooms
from homeserver.sync.personal_parts import PersonalParts, global_account_data
from homeserver.sync.recipient import Recipient
from homeserver.sync.room_part import RoomPart
from homeserver.sync.rooms import Section, Shown
from homeserver.sync.rooms_of_delta import RoomsOfDelta, Told
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.session import DEFAULT_OPTIONS, Options, Session
from homeserver.sync.shown_rooms import ShownRooms
from homeserver.sync.sources import DatabaseSource, RingSource, Source
from homeserver.sync.suppliers import AccountDatum, Deliveries, Ephemeral, IgnoredUsers
from homeserver.sync.tokens import EphemeralPlace, SyncToken, require_known
from protocol.identifiers import UserID
from storage.database import Database
from storage.memberships import Membership


@frozen(eq=False)
class Parts:
    """What chooses and renders the parts of a delta."""

    personal: PersonalParts
    live: LiveRooms
    shown: ShownRooms
    rooms: RoomsOfDelta
    sent: SentMembers


@frozen(eq=False)
class Moment:
    """What a delta speaks of: the reader, the feed up to one position, the ephemeral ring."""

    to: Recipient
    rooms: Mapping[int, UserRoom]
    since: SyncToken | None
    """None: a first sync."""
    place: EphemeralPlace

    @property
    def device(self) -> int:
        """Give the last to-device message that the client has."""
        return 0 if self.since is None else self.since.device

    @property
    def joined(self) -> set[int]:
        """Give the nids of the rooms the reader is joined in."""
        return {nid for nid, room in self.rooms.items() if room.membership is Membership.JOIN}

    @property
    def has_ephemeral(self) -> bool:
        """Tell whether typing or presence may have changed."""
        return self.since is None or self.since.place is not self.place

    @property
    def ephemeral_since(self) -> int | None:
        """Give the counter from which typing and presence are told; None: all that holds now."""
        if self.since is None or self.since.place.ring != self.place.ring:
            return None
        return self.since.place.n


@define(eq=False)
class SessionFeed:
    """Computes deltas."""

    _feed: Feed
    _database: Database
    _rooms: UserRooms
    _parts: Parts
    _ephemeral: Ephemeral
    _ignored: IgnoredUsers
    _deliveries: Deliveries
    _epoch: int
    use_ring: bool = True
    """Off: every delta is read from the database, to compare the two."""

    @property
    def position(self) -> int:
        """Give the feed's position."""
        return self._feed.position

    def is_still(self, since: SyncToken) -> bool:
        """Tell whether neither the feed nor the ephemeral ring moved since a token."""
        return since.pos == self._feed.position and since.place is self._place(since)

    def _place(self, since: SyncToken | None) -> EphemeralPlace:
        """Give the place in the ephemeral ring: that of the token, if nothing has moved since."""
        ring, n = self._ephemeral.ring, self._ephemeral.position
        if since is not None and since.place.n == n and since.place.ring == ring:
            return since.place
        return EphemeralPlace(ring, n)

    async def require_known(self, since: SyncToken) -> None:
        """Raise UnknownPos for a token of another epoch or the future."""
        await require_known(since.epoch, since.pos, self._epoch, self._feed)

    def arrived(self, session: Session, pos: int) -> None:
        """Note that the client has everything up to a position."""
        self._deliveries.arrived(session.user_nid, pos)

    async def received(self, session: Session, device: int) -> None:
        """Drop the to-device messages up to `device`: the client has them."""
        await self._parts.personal.acknowledge(session, device)

    async def device_lists(self, session: Session, since: SyncToken, *, now: int) -> bytes:
        """Give the `device_lists` object of a delta since a token, also an empty one; errors as there."""
        await self.require_known(since)
        moment = await self._moment(session, since, DEFAULT_OPTIONS, now)
        source = self._source(moment.to.since, moment.to.upto)
        personal = await source.personal(session.user_nid, moment.joined)
        shown = await self._parts.shown.since(moment.rooms, personal, {}, moment.to)
        found = await self._parts.personal.device_lists(moment.to, personal, shown)
        return found or NO_DEVICE_LISTS.to_json()

    async def delta(
        self,
        session: Session,
        since: SyncToken | None,
        options: Options = DEFAULT_OPTIONS,
        *,
        now: int,
        keep_messages: bool = False,
    ) -> Delta:
        """Give what changed for a session; raise UnknownPos for a token of another epoch or the future.

        The to-device messages that `since` contains are dropped, since the client has them, unless they
        are to be kept until it says so (`received`).
        """
        if since is None:
            self._parts.sent.forget(session)
            self._deliveries.begins(session.user_nid)
        else:
            await self.require_known(since)
            if not keep_messages:
                self.arrived(session, since.pos)
                await self.received(session, since.device)
        moment = await self._moment(session, since, options, now)
        live = self._live(moment)
        return await (self._whole(moment) if live is None else self._shared(moment, live))

    async def _moment(self, session: Session, since: SyncToken | None, options: Options, now: int) -> Moment:
        """Take the position, with the memberships that hold at it; nothing waits in between."""
        ignored = await self._ignored.of(session.user_nid)
        rooms = await self._rooms.of(session.user_nid)
        place = self._place(since)
        start = 0 if since is None else since.pos
        to = Recipient(session, options, ignored, start, self._feed.position, self._epoch, now)
        return Moment(to, rooms, since, place)

    def _live(self, moment: Moment) -> Mapping[int, LiveRoom] | None:
        """Give the rooms of a delta that says the same to many; None: it must be found the whole way."""
        to = moment.to
        if moment.has_ephemeral or not self.use_ring or to.since <= 0 or to.options.full_state:
            return None
        return self._parts.live.rooms(moment.rooms, to)

    async def _shared(self, moment: Moment, live: Mapping[int, LiveRoom]) -> Delta:
        """Give a delta of rooms that say the same to many, and of what waits for the device."""
        personal, to = self._parts.personal, moment.to
        parts = await self._parts.live.parts(live, to) if live else ()
        messages, device = await personal.to_device(to.session, moment.device)
        counts = await personal.key_counts(to.session)
        token = (to.epoch, to.upto, device, moment.place)
        if messages:
            return Delta(SyncToken(*token), parts, to_device=messages, key_counts=counts)
        return self._parts.live.delta(token, tuple(parts), counts)

    async def _whole(self, moment: Moment) -> Delta:
        """Give any delta."""
        to = moment.to
        source = self._source(to.since, to.upto)
        personal = None
        if moment.since is not None:
            personal = await source.personal(to.session.user_nid, moment.joined)
        data = await self._parts.personal.account_data(to.session, personal)
        typing = self._typing(moment)
        if personal is None:
            shown = await self._parts.shown.first(moment.rooms, to)
        else:
            shown = await self._parts.shown.since(moment.rooms, personal, typing, to)
            data = await self._with_new_rooms(to.session, data, shown)
        told = Told(shown, source, personal, data, typing)
        parts = await self._parts.rooms.parts(told, to) if shown else []
        return await self._finish(parts, moment, told)

    def _source(self, after: int, upto: int) -> Source:
        """Give the ring if it reaches back, else the database."""
        entries = self._feed.since(after) if self.use_ring and after > 0 else None
        if entries is None:
            return DatabaseSource(self._database, after, upto)
        return RingSource(entries)

    def _typing(self, moment: Moment) -> Mapping[int, Sequence[UserID]]:
        """Give who types, where that changed, in rooms the reader is joined in."""
        if not moment.has_ephemeral:
            return {}
        return self._ephemeral.typing(moment.joined, moment.ephemeral_since)

    async def _with_new_rooms(
        self, session: Session, data: Sequence[AccountDatum], shown: Sequence[Shown]
    ) -> Sequence[AccountDatum]:
        """Add all account data of rooms that are new to the reader."""
        new = {each.room.room_nid for each in shown if each.section is Section.JOIN and each.after == 0}
        if not new:
            return data
        changed = [each for each in data if each.room_nid not in new]
        everything = await self._parts.personal.account_data(session, None)
        return [*changed, *(each for each in everything if each.room_nid in new)]

    async def _finish(self, rooms: Sequence[RoomPart], moment: Moment, told: Told) -> Delta:
        """Add the parts that are no room."""
        personal, to = self._parts.personal, moment.to
        wanted = to.options.filter
        messages, device = await personal.to_device(to.session, moment.device)
        presence: Sequence[bytes] = ()
        if moment.has_ephemeral and not wanted.presence.never:
            presence = await self._ephemeral.presence(to.session, moment.ephemeral_since, wanted.presence)
        return Delta(
            next_batch=SyncToken(to.epoch, to.upto, device, moment.place),
            rooms=rooms,
            account_data=global_account_data(told.account_data, wanted.account_data),
            presence=b",".join(presence),
            to_device=messages,
            device_lists=await personal.device_lists(to, told.personal, told.shown),
            key_counts=await personal.key_counts(to.session),
        )
