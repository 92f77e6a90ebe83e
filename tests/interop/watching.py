"""Follow a user's `/sync` and remember what came, so that a test can wait for what it expects."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

from attrs import field, mutable

from tests.interop.client import Json, User

POLL_MS = 1000
PATIENCE_SECONDS = 60.0


class NotSeen(AssertionError):
    """What a test waited for did not come over `/sync` in time."""


@mutable
class RoomView:
    """What `/sync` told of one joined room."""

    events: list[Json] = field(factory=list)
    state: dict[tuple[str, str], Json] = field(factory=dict)
    receipts: dict[str, str] = field(factory=dict)
    delivered: dict[str, str] = field(factory=dict)
    typing: set[str] = field(factory=set)

    def texts(self) -> list[str]:
        """Give the bodies of messages, in the order they came."""
        return [event["content"]["body"] for event in self.events if "body" in event["content"]]

    def update(self, room: Json) -> None:
        """Take in one room of an answer."""
        for event in room.get("state", {}).get("events", []):
            self._set_state(event)
        for event in room.get("timeline", {}).get("events", []):
            self.events.append(event)
            self._set_state(event)
        for event in room.get("ephemeral", {}).get("events", []):
            self._ephemeral(event["type"], event["content"])

    def _set_state(self, event: Json) -> None:
        """Note a state event."""
        if "state_key" in event:
            self.state[event["type"], event["state_key"]] = event["content"]

    def _ephemeral(self, event_type: str, content: Json) -> None:
        """Note typing, public read receipts and delivery marks (user → event)."""
        if event_type == "m.typing":
            self.typing = set(content["user_ids"])
        if event_type == "m.receipt":
            for event_id, kinds in content.items():
                self.receipts |= dict.fromkeys(kinds.get("m.read", {}), event_id)
        if event_type == "org.plait.delivered":
            for event_id, users in content.items():
                self.delivered |= dict.fromkeys(users, event_id)


@mutable
class Watcher:
    """One user's `/sync`, followed on demand."""

    user: User
    since: str | None = None
    rooms: dict[str, RoomView] = field(factory=lambda: defaultdict(RoomView))
    invites: dict[str, list[Json]] = field(factory=dict)
    left: set[str] = field(factory=set)

    async def poll(self, timeout_ms: int = 0) -> None:
        """Make one `/sync` request and take in its answer."""
        answer = await self.user.sync(self.since, timeout_ms)
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for room_id, room in rooms.get("join", {}).items():
            self.rooms[room_id].update(room)
            self.left.discard(room_id)
            self.invites.pop(room_id, None)
        for room_id, room in rooms.get("invite", {}).items():
            self.invites[room_id] = room["invite_state"]["events"]
        for room_id in rooms.get("leave", {}):
            self.left.add(room_id)
            self.invites.pop(room_id, None)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Follow `/sync` until `holds()`; raise `NotSeen` naming `what` after a minute."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise NotSeen(f"{self.user.user_id} did not see {what}")
            await self.poll(POLL_MS)

    async def until_texts(self, room_id: str, texts: Iterable[str]) -> None:
        """Follow until all these message bodies came in the room, in any order."""
        wanted = set(texts)
        view = self.rooms[room_id]

        def all_came() -> bool:
            return wanted <= set(view.texts())

        try:
            await self.until(all_came, f"messages in {room_id}")
        except NotSeen as late:
            raise NotSeen(f"{late}: missing {sorted(wanted - set(view.texts()))[:20]}") from None

    async def until_state(self, room_id: str, event_type: str, state_key: str, content: Json) -> None:
        """Follow until a state event's content includes `content`."""
        view = self.rooms[room_id]

        def includes() -> bool:
            found = view.state.get((event_type, state_key))
            return found is not None and content.items() <= found.items()

        await self.until(includes, f"{event_type}/{state_key} with {content} in {room_id}")

    async def until_member(self, room_id: str, user_id: str, membership: str) -> None:
        """Follow until a user's membership is as told."""
        await self.until_state(room_id, "m.room.member", user_id, {"membership": membership})


async def read_history(user: User, room_id: str, page: int = 100, most: int = 100) -> list[Json]:
    """Page backwards to the room's beginning (at most `most` pages), and give the events oldest first."""
    events: list[Json] = []
    query: dict[str, Any] = {"limit": page}
    for _ in range(most):
        answer = await user.messages(room_id, **query)
        events += answer["chunk"]
        if "end" not in answer:
            break
        query["from"] = cast(str, answer["end"])
    return events[::-1]
