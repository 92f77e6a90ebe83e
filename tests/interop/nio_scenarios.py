"""What matrix-nio, unmodified, does with a homeserver: a program of its own, because nio needs asyncio.

`python -m tests.interop.nio_scenarios NAME URL` plays one scenario and exits 0, or shows what failed.
`test_nio.py` runs it; a scenario asserts on nio's own response classes, so a field that nio misses fails.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import nio
from attrs import frozen

R = TypeVar("R")
PASSWORD = "correct horse battery staple"
SYNC_MS = 1000
PATIENCE_SECONDS = 30


@frozen
class Stage:
    """The server under test, and the clients a scenario opened."""

    url: str
    clients: list[nio.AsyncClient]

    async def newcomer(self, name: str) -> nio.AsyncClient:
        """Register an account with a fresh name, and give its client, logged in."""
        client = nio.AsyncClient(self.url, f"{name}-{time.monotonic_ns()}")
        self.clients.append(client)
        expect(await client.register(client.user, PASSWORD, "nio"), nio.RegisterResponse)
        return client


def expect(answer: object, wanted: type[R]) -> R:
    """Give the answer if nio parsed it as the wanted response; fail with nio's error otherwise."""
    assert isinstance(answer, wanted), f"wanted {wanted.__name__}, got {answer!r}"
    return answer


async def sync_until(client: nio.AsyncClient, holds: Callable[[nio.SyncResponse], bool], what: str) -> None:
    """Sync until an answer has what is awaited; fail naming `what` past the deadline."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if holds(expect(await client.sync(timeout=SYNC_MS), nio.SyncResponse)):
            return
    raise AssertionError(f"{client.user_id} did not see {what}")


def timeline(answer: nio.SyncResponse, room_id: str) -> list[Any]:
    """Give the timeline events of a joined room in an answer."""
    joined = answer.rooms.join.get(room_id)
    return list(joined.timeline.events) if joined else []


def ephemeral(answer: nio.SyncResponse, room_id: str) -> list[Any]:
    """Give the ephemeral events of a joined room in an answer."""
    joined = answer.rooms.join.get(room_id)
    return list(joined.ephemeral) if joined else []


async def say(client: nio.AsyncClient, room_id: str, text: str) -> str:
    """Send a text message and give its event ID."""
    content = {"msgtype": "m.text", "body": text}
    answer = expect(await client.room_send(room_id, "m.room.message", content), nio.RoomSendResponse)
    return str(answer.event_id)


async def together(stage: Stage) -> tuple[nio.AsyncClient, nio.AsyncClient, str]:
    """Let two newcomers meet in a private room: one creates and invites, the other joins."""
    alice, bob = await stage.newcomer("alice"), await stage.newcomer("bob")
    created = expect(await alice.room_create(name="A quiet place"), nio.RoomCreateResponse)
    expect(await alice.room_invite(created.room_id, bob.user_id), nio.RoomInviteResponse)
    expect(await bob.join(created.room_id), nio.JoinResponse)
    return alice, bob, created.room_id


async def accounts(stage: Stage) -> None:
    """Register, log out, log in again (nio asks for the device it had), list and name devices."""
    client = await stage.newcomer("alice")
    first_device = client.device_id
    expect(await client.logout(), nio.LogoutResponse)
    login = expect(await client.login(PASSWORD, device_name="again"), nio.LoginResponse)
    assert login.device_id == first_device
    who = expect(await client.whoami(), nio.WhoamiResponse)
    assert (who.user_id, who.device_id) == (login.user_id, login.device_id)
    expect(await client.update_device(login.device_id, {"display_name": "renamed"}), nio.UpdateDeviceResponse)
    devices = expect(await client.devices(), nio.DevicesResponse).devices
    assert [(device.id, device.display_name) for device in devices] == [(login.device_id, "renamed")]
    stranger = nio.AsyncClient(stage.url, client.user_id)
    stage.clients.append(stranger)
    refused = expect(await stranger.login("wrong"), nio.LoginError)
    assert refused.status_code == "M_FORBIDDEN"


async def rooms(stage: Stage) -> None:
    """Create rooms, invite, see the invite, join, see names and members, find an alias, leave, forget."""
    alice, bob = await stage.newcomer("alice"), await stage.newcomer("bob")
    alias = f"den-{time.monotonic_ns()}"
    created = expect(
        await alice.room_create(alias=alias, name="The den", topic="Quiet", invite=[bob.user_id]),
        nio.RoomCreateResponse,
    )
    await sync_until(bob, lambda answer: created.room_id in answer.rooms.invite, "the invite")
    assert bob.invited_rooms[created.room_id].inviter == alice.user_id
    server = alice.user_id.split(":", 1)[1]
    found = expect(await bob.room_resolve_alias(f"#{alias}:{server}"), nio.RoomResolveAliasResponse)
    assert found.room_id == created.room_id
    expect(await bob.join(created.room_id), nio.JoinResponse)
    await sync_until(bob, lambda answer: created.room_id in answer.rooms.join, "the room")
    room = bob.rooms[created.room_id]
    assert (room.name, room.topic, set(room.users)) == ("The den", "Quiet", {alice.user_id, bob.user_id})
    members = expect(await bob.joined_members(created.room_id), nio.JoinedMembersResponse)
    assert {member.user_id for member in members.members} == {alice.user_id, bob.user_id}
    state = expect(
        await bob.room_get_state_event(created.room_id, "m.room.topic"), nio.RoomGetStateEventResponse
    )
    assert state.content["topic"] == "Quiet"
    expect(await bob.room_leave(created.room_id), nio.RoomLeaveResponse)
    expect(await bob.room_forget(created.room_id), nio.RoomForgetResponse)
    assert expect(await bob.joined_rooms(), nio.JoinedRoomsResponse).rooms == []


async def conversation(stage: Stage) -> None:
    """Send and sync both ways, then page back through more messages than one page holds."""
    alice, bob, room_id = await together(stage)
    await sync_until(bob, lambda answer: room_id in answer.rooms.join, "the room")
    sent = [await say(alice if number % 2 else bob, room_id, f"message {number}") for number in range(30)]
    start = expect(await bob.sync(), nio.SyncResponse).next_batch
    paged: list[str] = []
    while len(paged) < len(sent):
        page = expect(await bob.room_messages(room_id, start, limit=7), nio.RoomMessagesResponse)
        paged += [event.event_id for event in page.chunk if isinstance(event, nio.RoomMessageText)]
        assert page.chunk and page.end, "history ended early"
        start = page.end
    assert paged == sent[::-1]
    later = [await say(alice, room_id, f"later {number}") for number in range(5)]
    seen: list[str] = []

    def all_seen(answer: nio.SyncResponse) -> bool:
        seen.extend(event.event_id for event in timeline(answer, room_id))
        return len(seen) >= len(later)

    await sync_until(bob, all_seen, "five messages")
    assert seen == later


async def redaction(stage: Stage) -> None:
    """Redact a message: others are told, and the message is served without its text."""
    alice, bob, room_id = await together(stage)
    slip = await say(alice, room_id, "a slip")
    await sync_until(
        bob,
        lambda answer: any(
            isinstance(event, nio.RoomMessageText) and event.event_id == slip
            for event in timeline(answer, room_id)
        ),
        "the slip",
    )
    redacted = expect(await alice.room_redact(room_id, slip, reason="typed too fast"), nio.RoomRedactResponse)
    await sync_until(
        bob,
        lambda answer: any(
            isinstance(event, nio.RedactionEvent) and event.redacts == slip
            for event in timeline(answer, room_id)
        ),
        f"the redaction {redacted.event_id}",
    )
    kept = expect(await bob.room_get_event(room_id, slip), nio.RoomGetEventResponse)
    assert isinstance(kept.event, nio.RedactedEvent), kept.event


async def ephemera(stage: Stage) -> None:
    """Typing starts and stops, receipts and read markers arrive."""
    alice, bob, room_id = await together(stage)
    event_id = await say(alice, room_id, "anyone there?")
    expect(await bob.room_typing(room_id, True, timeout=20000), nio.RoomTypingResponse)
    await sync_until(
        alice,
        lambda answer: any(
            isinstance(event, nio.TypingNoticeEvent) and event.users == [bob.user_id]
            for event in ephemeral(answer, room_id)
        ),
        "typing",
    )
    expect(await bob.room_typing(room_id, False), nio.RoomTypingResponse)
    await sync_until(
        alice,
        lambda answer: any(
            isinstance(event, nio.TypingNoticeEvent) and event.users == []
            for event in ephemeral(answer, room_id)
        ),
        "the end of typing",
    )
    expect(await bob.update_receipt_marker(room_id, event_id), nio.UpdateReceiptMarkerResponse)
    await sync_until(
        alice,
        lambda answer: any(
            (receipt.event_id, receipt.user_id) == (event_id, bob.user_id)
            for event in ephemeral(answer, room_id)
            if isinstance(event, nio.ReceiptEvent)
            for receipt in event.receipts
        ),
        "the receipt",
    )
    expect(await bob.room_read_markers(room_id, event_id, event_id), nio.RoomReadMarkersResponse)


async def profile(stage: Stage) -> None:
    """Set a name and an avatar: the profile has them, and rooms are told."""
    alice, bob, room_id = await together(stage)
    await sync_until(bob, lambda answer: room_id in answer.rooms.join, "the room")
    avatar = "mxc://example.org/picture"
    expect(await alice.set_displayname("Alice Liddell"), nio.ProfileSetDisplayNameResponse)
    expect(await alice.set_avatar(avatar), nio.ProfileSetAvatarResponse)
    found = expect(await bob.get_profile(alice.user_id), nio.ProfileGetResponse)
    assert (found.displayname, found.avatar_url) == ("Alice Liddell", avatar)
    room = bob.rooms[room_id]
    await sync_until(
        bob,
        lambda answer: (
            (room.user_name(alice.user_id), room.avatar_url(alice.user_id)) == ("Alice Liddell", avatar)
        ),
        "the new profile",
    )
    presence = expect(await alice.set_presence("unavailable", "out for tea"), nio.PresenceSetResponse)
    assert presence


SCENARIOS: Mapping[str, Callable[[Stage], Awaitable[None]]] = {
    scenario.__name__: scenario for scenario in (accounts, rooms, conversation, redaction, ephemera, profile)
}


async def play(name: str, url: str) -> None:
    """Play one scenario, and close its clients."""
    stage = Stage(url, [])
    try:
        await SCENARIOS[name](stage)
    finally:
        for client in stage.clients:
            await client.close()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], sys.argv[2]))
