"""Rooms for tests of the rules: a state that is made by hand, and events judged by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from protocol.auth_rules import AuthError, check_auth
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import EventID, RoomID, StateKey, UserID, server_of
from protocol.room_versions import RoomVersion
from tests.protocol.helpers import KEY, NOW


@define
class Room:
    """A create event and the state beside it."""

    version: RoomVersion
    create: Event
    state: dict[StateKey, Event] = Factory(dict)

    @classmethod
    def of(
        cls,
        version: RoomVersion,
        creator: UserID,
        content: Mapping[str, Any] | None = None,
        *,
        room_id: RoomID | None = None,
        drop: tuple[str, ...] = (),
    ) -> Room:
        """Begin a room; `content` joins that of the create event, and `drop` leaves it.

        Raises AuthError if the rules refuse the create event.
        """
        whole: dict[str, Any] = {"room_version": version.id}
        if not version.implicit_room_creator:
            whole["creator"] = creator
        whole = {name: value for name, value in {**whole, **(content or {})}.items() if name not in drop}
        if version.room_id_is_create_hash:
            room_id = None
        elif room_id is None:
            room_id = RoomID(f"!room:{server_of(creator)}")
        create = _build(version, EventDraft(room_id, "m.room.create", creator, whole, ""), ())
        check_auth(create, {})
        return cls(version, create, {create.key: create})

    def with_members(self, *users: UserID) -> Room:
        """Let users be in the room."""
        for user_id in users:
            self.set("m.room.member", {"membership": "join"}, user_id)
        return self

    def set(self, event_type: str, content: Mapping[str, Any], state_key: str = "") -> Event:
        """Set state, allowed or not."""
        sender = UserID(state_key) if event_type == "m.room.member" else self.create.sender
        event = self.event(event_type, sender, content, state_key)
        self.state[event.key] = event
        return event

    def event(
        self,
        type: str,
        sender: UserID,
        content: Mapping[str, Any],
        state_key: str | None = None,
        redacts: EventID | None = None,
        first: bool = False,
    ) -> Event:
        """Make an event of anybody; the `first` one follows the create event."""
        draft = EventDraft(self.create.room_id, type, sender, content, state_key, redacts)
        other = EventID("$other:alpha.example")
        return _build(self.version, draft, (self.create.event_id if first else other,))

    def allows(self, event: Event) -> bool:
        """Tell whether the rules allow an event here."""
        try:
            check_auth(event, self.state)
        except AuthError:
            return False
        return True


def _build(version: RoomVersion, draft: EventDraft, parents: tuple[EventID, ...]) -> Event:
    links = Links(parents, (), 1)
    return build_event(draft, version, links, now=NOW, server_name=server_of(draft.sender), key=KEY)
