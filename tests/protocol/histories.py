"""A small model of a room that knows what may happen next, and the histories it makes.

It is written from the meaning of memberships and levels, and asks none of the rules it is to test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

from attrs import Factory, define, field, frozen

from protocol.auth_rules import auth_keys_for
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import EventID, RoomID, StateKey, UserID, server_of
from protocol.room_versions import RoomVersion
from tests.protocol.helpers import ALICE, BOB, KEY, NOW

USERS = (ALICE, BOB, UserID("@carol:gamma.example"), UserID("@dan:alpha.example"))
ABOVE_ALL = 1 << 60
MODERATOR = 50
"""The level that kicking, banning and state need; inviting and talking need none."""
LEVELS = (0, 25, MODERATOR, 100)
Content = Mapping[str, Any]


@frozen
class Step:
    """Something that may happen."""

    type: str
    sender: UserID
    content: Content
    state_key: str | None = None


@define
class Model:
    """Who is where in a room, and who has which level."""

    version: RoomVersion
    members: dict[str, str] = Factory(dict)
    levels: dict[str, int] = Factory(dict)
    rule: str = "invite"

    def level(self, user: UserID) -> int:
        """Give a user's level."""
        return ABOVE_ALL if self._is_above_all(user) else self.levels.get(user, 0)

    def _is_above_all(self, user: UserID) -> bool:
        return self.version.privileged_creators and user == ALICE

    def steps(self) -> list[Step]:
        """Give all that may happen next."""
        return [step for user in USERS for step in (*self._own(user), *self._inside(user))]

    def _own(self, user: UserID) -> Iterator[Step]:
        """Give what a user may do with the own membership."""
        here = self.members.get(user, "leave")
        if here in ("join", "invite") or (self.rule == "public" and here != "ban"):
            yield _member(user, user, "join")
        if here in ("join", "invite", "knock"):
            yield _member(user, user, "leave")
        if "restricted" in self.rule and here != "ban":
            for each in self._joined():
                yield _member(user, user, "join", join_authorised_via_users_server=each)
        if "knock" in self.rule and here in ("leave", "knock"):
            yield _member(user, user, "knock")

    def _joined(self) -> list[UserID]:
        return [user for user in USERS if self.members.get(user) == "join"]

    def _inside(self, user: UserID) -> Iterator[Step]:
        """Give what a user may do in the room."""
        if self.members.get(user) != "join":
            return
        yield Step("m.room.message", user, {"body": "hello"})
        for other in USERS:
            if self.members.get(other, "leave") not in ("join", "ban"):
                yield _member(user, other, "invite")
            if self.level(other) < self.level(user) >= MODERATOR:
                yield _member(user, other, "leave")
                yield _member(user, other, "ban")
        if self.level(user) >= MODERATOR:
            yield Step("m.room.name", user, {"name": f"{user}'s"}, "")
            yield from (Step("m.room.join_rules", user, {"join_rule": rule}, "") for rule in self._rules())
            yield from self._promotions(user)

    def _rules(self) -> Iterator[str]:
        yield from ("public", "invite")
        version = self.version
        known = {
            "knock": version.knock,
            "restricted": version.restricted_join,
            "knock_restricted": version.knock_restricted_join,
        }
        yield from (rule for rule, is_known in known.items() if is_known)

    def _promotions(self, user: UserID) -> Iterator[Step]:
        own = self.level(user)
        for other in USERS:
            if not self._is_above_all(other) and (other == user or self.level(other) < own):
                for level in LEVELS:
                    if level <= own:
                        users = {**self.levels, other: level}
                        yield Step("m.room.power_levels", user, {"users": users}, "")

    def take(self, step: Step) -> None:
        """Let a step have happened."""
        if step.type == "m.room.member":
            self.members[str(step.state_key)] = step.content["membership"]
        elif step.type == "m.room.join_rules":
            self.rule = step.content["join_rule"]
        elif step.type == "m.room.power_levels":
            self.levels = dict(step.content["users"])


def _member(sender: UserID, target: UserID, membership: str, **more: str) -> Step:
    return Step("m.room.member", sender, {"membership": membership, **more}, target)


@define
class History:
    """A line of events that may all be, from the create event on; forks share its beginning."""

    model: Model
    events: list[Event] = field()
    state: dict[StateKey, Event] = Factory(dict)

    @classmethod
    def begin(cls, version: RoomVersion) -> History:
        """Make a room of Alice's."""
        content = {"room_version": version.id}
        if not version.implicit_room_creator:
            content["creator"] = ALICE
        room_id = None if version.room_id_is_create_hash else RoomID("!room:alpha.example")
        create = _build(EventDraft(room_id, "m.room.create", ALICE, content, ""), version, Links((), (), 1))
        history = cls(Model(version), [create], {create.key: create})
        history.add(_member(ALICE, ALICE, "join"))
        users = {} if version.privileged_creators else {ALICE: 100}
        history.add(Step("m.room.power_levels", ALICE, {"users": users}, ""))
        return history

    @property
    def room_id(self) -> RoomID:
        """Give the room's ID."""
        return self.events[0].room_id

    def grow(self, numbers: list[int]) -> Iterator[tuple[Event, list[Event], dict[StateKey, Event]]]:
        """Let things happen, chosen by numbers; give each event, what it names, and the state before it."""
        for number in numbers:
            steps = self.model.steps()
            if not steps:  # nobody is left, and nobody may come
                return
            before = dict(self.state)
            event, named = self.add(steps[number % len(steps)])
            yield event, named, before

    def add(self, step: Step) -> tuple[Event, list[Event]]:
        """Let a step happen; give the event, and those it names as its authority."""
        version = self.model.version
        keys = auth_keys_for(version, step.type, step.sender, step.state_key, step.content)
        if not version.create_in_auth_events:
            keys -= {("m.room.create", "")}
        named = [self.state[key] for key in sorted(keys) if key in self.state]
        last = self.events[-1]
        links = Links((last.event_id,), tuple(each.event_id for each in named), last.depth + 1)
        draft = EventDraft(self.room_id, step.type, step.sender, step.content, step.state_key)
        event = _build(draft, version, links)
        self.events.append(event)
        if event.is_state:
            self.state[event.key] = event
        self.model.take(step)
        return event, named

    def fork(self) -> History:
        """Give a history that goes on by itself from here."""
        model = copy(self.model)
        model.members, model.levels = dict(model.members), dict(model.levels)
        return History(model, list(self.events), dict(self.state))

    def state_ids(self) -> dict[StateKey, EventID]:
        """Give the state after the last event."""
        return {key: event.event_id for key, event in self.state.items()}


def _build(draft: EventDraft, version: RoomVersion, links: Links) -> Event:
    server = server_of(draft.sender)
    return build_event(draft, version, links, now=NOW + links.depth, server_name=server, key=KEY)
