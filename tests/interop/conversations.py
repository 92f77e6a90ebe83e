"""What users of two homeservers do together; the same scenarios for any pair of servers.

Each function is one scenario over two nodes: a room lives first on `host`, and `guest` joins it. What a
user sees is read from her own server's client API alone.
"""

from __future__ import annotations

import time

from tests.interop.client import User
from tests.interop.network import Node
from tests.interop.watching import Watcher, read_history

OLD_MESSAGES = 200


async def open_room(host: User, version: str, **options: object) -> str:
    """Create a room that anyone may join."""
    return await host.create_room(preset="public_chat", room_version=version, **options)


async def talk(host: Node, guest: Node, version: str) -> None:
    """The guest joins, both talk, redact, read and type, and the guest leaves."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await open_room(alice, version, name="Common ground")
    hers, his = Watcher(alice), Watcher(bob)
    await bob.join(room_id, host.name)
    await hers.until_member(room_id, bob.user_id, "join")
    await his.until_state(room_id, "m.room.name", "", {"name": "Common ground"})
    for watcher, speaker, name in ((his, alice, "alice"), (hers, bob, "bob")):
        texts = [f"{name} says {number}" for number in range(5)]
        for text in texts:
            await speaker.say(room_id, text)
        await watcher.until_texts(room_id, texts)
        assert [text for text in watcher.rooms[room_id].texts() if text in texts] == texts
    await _redact(alice, his, room_id)
    await _redact(bob, hers, room_id)
    await _read(alice, his, room_id)
    await _read(bob, hers, room_id)
    await _type(alice, his, room_id)
    await _type(bob, hers, room_id)
    await alice.set_state(room_id, "m.room.topic", {"topic": "farewell"})
    await his.until_state(room_id, "m.room.topic", "", {"topic": "farewell"})
    await bob.leave(room_id)
    await hers.until_member(room_id, bob.user_id, "leave")


async def _redact(author: User, reader: Watcher, room_id: str) -> None:
    """The author redacts her message; the reader gets the redaction, and the message without its text."""
    slip = await author.say(room_id, f"{author.user_id} slips")
    await reader.until_texts(room_id, [f"{author.user_id} slips"])
    redaction = await author.redact(room_id, slip)

    def redaction_came() -> bool:
        return any(event["event_id"] == redaction for event in reader.rooms[room_id].events)

    await reader.until(redaction_came, "the redaction")
    emptied = await reader.user.event(room_id, slip)
    assert "body" not in emptied["content"], emptied
    assert emptied["unsigned"]["redacted_because"]["event_id"] == redaction, emptied


async def _read(author: User, reader: Watcher, room_id: str) -> None:
    """The reader reads a message; its author gets the receipt."""
    text = f"{author.user_id} asks"
    question = await author.say(room_id, text)
    await reader.until_texts(room_id, [text])
    await reader.user.read(room_id, question)
    watcher = Watcher(author)
    view = watcher.rooms[room_id]
    await watcher.until(lambda: view.receipts.get(reader.user.user_id) == question, "the receipt")


async def _type(typist: User, reader: Watcher, room_id: str) -> None:
    """The reader sees a typist begin and stop."""
    view = reader.rooms[room_id]
    await typist.set_typing(room_id, True)
    await reader.until(lambda: typist.user_id in view.typing, "typing")
    await typist.set_typing(room_id, False)
    await reader.until(lambda: typist.user_id not in view.typing, "the end of typing")


async def find_published_rooms(host: Node, guest: Node, version: str) -> None:
    """The guest finds a room in the directory of the host's server, with words and page by page."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    word = f"w{time.monotonic_ns()}"
    rooms = {
        await open_room(alice, version, name=f"{word} {number}", topic="tea", visibility="public")
        for number in range(3)
    }
    server, chosen = {"server": host.name}, {"generic_search_term": word}
    first = await bob.request("POST", "/v3/publicRooms", {"limit": 2, "filter": chosen}, server)
    wanted = {"limit": 2, "filter": chosen, "since": first["next_batch"]}
    second = await bob.request("POST", "/v3/publicRooms", wanted, server)
    found = [*first["chunk"], *second["chunk"]]
    assert {room["room_id"] for room in found} == rooms, found
    for room in found:
        assert room["name"].startswith(word), room
        assert room["topic"] == "tea", room
        assert (room["num_joined_members"], room["join_rule"]) == (1, "public"), room
    listed = await bob.request("GET", "/v3/publicRooms", None, {**server, "limit": 100})
    assert rooms <= {room["room_id"] for room in listed["chunk"]}, listed


async def read_old_messages(host: Node, guest: Node, version: str) -> None:
    """A guest who joins late pages back to the room's beginning and misses nothing."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await open_room(alice, version)
    texts = [f"old message {number}" for number in range(OLD_MESSAGES)]
    sent = [await alice.say(room_id, text) for text in texts]
    await bob.join(room_id, host.name)
    history = await read_history(bob, room_id)
    messages = [event for event in history if event["type"] == "m.room.message"]
    assert [event["event_id"] for event in messages] == sent, f"{len(messages)} of {len(sent)} in order"
    assert [event["content"]["body"] for event in messages] == texts
    assert history[0]["type"] == "m.room.create"


async def part_and_meet(host: Node, guest: Node, version: str) -> None:
    """Cut off from each other, both sides go on; together again, they have the same room."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await open_room(alice, version, power_level_content_override={"users_default": 50})
    hers, his = Watcher(alice), Watcher(bob)
    await bob.join(room_id, host.name)
    await hers.until_member(room_id, bob.user_id, "join")
    await host.cut()
    await guest.cut()
    try:
        apart = await _go_on_apart(alice, bob, room_id)
    finally:
        await host.heal()
        await guest.heal()
    await alice.say(room_id, "alice is back")
    await hers.until_texts(room_id, apart)
    await his.until_texts(room_id, [*apart, "alice is back"])
    await bob.say(room_id, "bob is back")
    await hers.until_texts(room_id, ["bob is back"])
    await same_state(alice, bob, room_id)


async def _go_on_apart(alice: User, bob: User, room_id: str) -> list[str]:
    """Let both send messages and contradict each other's state; give the texts."""
    texts = []
    for user, name in ((alice, "alice"), (bob, "bob")):
        await user.set_state(room_id, "m.room.topic", {"topic": f"{name}'s topic"})
        await user.set_state(room_id, "org.example.mark", {"by": name}, name)
        for number in range(3):
            texts.append(f"{name} alone {number}")
            await user.say(room_id, texts[-1])
    await alice.set_state(room_id, "m.room.name", {"name": "alice's room"})
    return texts


async def same_state(alice: User, bob: User, room_id: str) -> None:
    """Check that two users' servers tell the same current state, event for event."""
    hers, his = await _state_ids(alice, room_id), await _state_ids(bob, room_id)
    assert hers == his, f"only one has {hers ^ his}"


async def _state_ids(user: User, room_id: str) -> set[tuple[str, str, str]]:
    """Give the current state as (type, state key, event ID)."""
    state = await user.full_state(room_id)
    return {(event["type"], event["state_key"], event["event_id"]) for event in state}
