"""How users of two homeservers are let in, put out, moved and kept out; the same for any pair of servers.

As in `conversations.py`, each function is one scenario over two nodes: a room lives first on `host`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from urllib.parse import quote

from tests.interop.client import ApiError
from tests.interop.conversations import open_room, same_state
from tests.interop.network import Node
from tests.interop.watching import Watcher, read_history

MISSED = 60


async def refused(request: Awaitable[object]) -> None:
    """See that a request is refused with 403."""
    try:
        await request
    except ApiError as error:
        assert error.status == 403, error
    else:
        raise AssertionError("the request was not refused")


async def knock(host: Node, guest: Node, version: str, *, take_back: bool) -> None:
    """A knock is seen and shows the room, may be taken back, and is answered by an invite."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await open_room(alice, version, name="Behind the door")
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    hers, his = Watcher(alice), Watcher(bob)
    if take_back:
        await bob.knock(room_id, host.name)
        await hers.until_member(room_id, bob.user_id, "knock")
        await bob.leave(room_id)
        await hers.until_member(room_id, bob.user_id, "leave")
    await bob.knock(room_id, host.name)
    await hers.until_member(room_id, bob.user_id, "knock")
    shown = (await bob.sync())["rooms"]["knock"][room_id]["knock_state"]["events"]
    assert {"name": "Behind the door"} in [each["content"] for each in shown], shown
    await alice.member_action(room_id, "invite", bob.user_id)
    await his.until(lambda: room_id in his.invites, "the invite")
    await bob.join(room_id, host.name)
    await bob.say(room_id, "thank you")
    await hers.until_texts(room_id, ["thank you"])


async def invite_again_and_again(host: Node, guest: Node, version: str) -> None:
    """An invite into an unknown room is taken back, another is refused, a third accepted."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await alice.create_room(preset="private_chat", room_version=version, name="Parlour")
    hers, his = Watcher(alice), Watcher(bob)
    await his.poll()
    await alice.member_action(room_id, "invite", bob.user_id)
    await his.until(lambda: room_id in his.invites, "the invite")
    shown = {event["type"]: event["content"] for event in his.invites[room_id]}
    assert shown["m.room.name"] == {"name": "Parlour"}, shown
    await alice.member_action(room_id, "kick", bob.user_id)
    await his.until(lambda: room_id in his.left, "the end of the invite")
    await alice.member_action(room_id, "invite", bob.user_id)
    await his.until(lambda: room_id in his.invites, "the second invite")
    await bob.leave(room_id)
    await hers.until_member(room_id, bob.user_id, "leave")
    await alice.member_action(room_id, "invite", bob.user_id)
    await his.until(lambda: room_id in his.invites, "the third invite")
    await bob.join(room_id)
    await hers.until_member(room_id, bob.user_id, "join")
    await bob.leave(room_id)
    await hers.until_member(room_id, bob.user_id, "leave")


async def join_by_membership_elsewhere(host: Node, guest: Node, version: str) -> None:
    """Who is in one room may join another that is restricted to it, and go on there under a new name."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    club = await open_room(alice, version)
    rule = {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": club}],
    }
    rules = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
    room_id = await alice.create_room(preset="private_chat", room_version=version, initial_state=rules)
    hers = Watcher(alice)
    await refused(bob.join(room_id, host.name))
    await bob.join(club, host.name)
    await hers.until_member(club, bob.user_id, "join")
    await bob.join(room_id, host.name)
    await hers.until_member(room_id, bob.user_id, "join")
    await bob.request("PUT", f"/v3/profile/{quote(bob.user_id)}/displayname", {"displayname": "Bobby"})
    await hers.until_state(room_id, "m.room.member", bob.user_id, {"displayname": "Bobby"})
    await bob.say(room_id, "a member of both")
    await hers.until_texts(room_id, ["a member of both"])
    await same_state(alice, bob, room_id)


async def moderate(host: Node, guest: Node, version: str) -> None:
    """A moderator of the guest's server puts a user of the host's out, for a while and for good."""
    alice, carol = await host.user("alice"), await host.user("carol")
    bob, dave = await guest.user("bob"), await guest.user("dave")
    room_id = await open_room(alice, version)
    hers, his, carols, daves = (Watcher(user) for user in (alice, bob, carol, dave))
    for user in (carol, bob, dave):
        await user.join(room_id, host.name)
        await hers.until_member(room_id, user.user_id, "join")
    levels = await alice.state(room_id, "m.room.power_levels")
    levels["users"] = {**levels.get("users", {}), bob.user_id: 50}
    await alice.set_state(room_id, "m.room.power_levels", levels)
    await his.until_state(room_id, "m.room.power_levels", "", levels)
    await carols.poll()
    await daves.poll()
    await bob.member_action(room_id, "kick", carol.user_id)
    await carols.until(lambda: room_id in carols.left, "the kick")
    await bob.member_action(room_id, "ban", carol.user_id)
    await hers.until_member(room_id, carol.user_id, "ban")
    await refused(carol.join(room_id, host.name))
    await bob.member_action(room_id, "unban", carol.user_id)
    await hers.until_member(room_id, carol.user_id, "leave")
    await carol.join(room_id, host.name)
    await his.until_member(room_id, carol.user_id, "join")
    await alice.member_action(room_id, "ban", dave.user_id)
    await daves.until(lambda: room_id in daves.left, "the ban")
    await his.until_member(room_id, dave.user_id, "ban")
    await same_state(alice, bob, room_id)


async def upgrade(host: Node, guest: Node, version: str) -> None:
    """A room is upgraded to version 12; a user of the other server follows the tombstone."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await open_room(alice, version, name="Old house")
    hers, his = Watcher(alice), Watcher(bob)
    await bob.join(room_id, host.name)
    await his.until_state(room_id, "m.room.name", "", {"name": "Old house"})
    path = f"/v3/rooms/{quote(room_id, safe='')}/upgrade"
    new_id = (await alice.request("POST", path, {"new_version": "12"}))["replacement_room"]
    await his.until_state(room_id, "m.room.tombstone", "", {"replacement_room": new_id})
    await bob.join(new_id, host.name)
    await hers.until_member(new_id, bob.user_id, "join")
    assert await bob.state(new_id, "m.room.name") == {"name": "Old house"}
    await same_state(alice, bob, new_id)


async def ban_while_apart(host: Node, guest: Node, version: str) -> None:
    """What a user says who was banned while the servers were apart reaches nobody; others are heard."""
    alice, bob, dave = await host.user("alice"), await guest.user("bob"), await guest.user("dave")
    room_id = await open_room(alice, version)
    hers, daves = Watcher(alice), Watcher(dave)
    await bob.join(room_id, host.name)
    await dave.join(room_id, host.name)
    await hers.until_member(room_id, dave.user_id, "join")
    await daves.poll()
    await host.cut()
    await guest.cut()
    try:
        await alice.member_action(room_id, "ban", dave.user_id)
        await dave.say(room_id, "dave speaks on")
        await bob.say(room_id, "bob speaks on")
    finally:
        await host.heal()
        await guest.heal()
    await alice.say(room_id, "alice is back")
    await daves.until(lambda: room_id in daves.left, "the ban")
    await hers.until_texts(room_id, ["bob speaks on"])
    await bob.say(room_id, "bob again")
    await hers.until_texts(room_id, ["bob again"])
    assert "dave speaks on" not in hers.rooms[room_id].texts()
    await same_state(alice, bob, room_id)


async def leave_and_come_back(host: Node, guest: Node, version: str) -> None:
    """A user who comes back after many messages sees the room as it is, and pages through what was missed."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    room_id = await open_room(alice, version)
    hers, his = Watcher(alice), Watcher(bob)
    await bob.join(room_id, host.name)
    await bob.say(room_id, "for now")
    await hers.until_texts(room_id, ["for now"])
    await bob.leave(room_id)
    await hers.until_member(room_id, bob.user_id, "leave")
    missed = [f"meanwhile {number}" for number in range(MISSED)]
    for text in missed:
        await alice.say(room_id, text)
    await alice.set_state(room_id, "m.room.topic", {"topic": "much has changed"})
    await bob.join(room_id, host.name)
    await his.until_state(room_id, "m.room.topic", "", {"topic": "much has changed"})
    await alice.say(room_id, "welcome back")
    await his.until_texts(room_id, ["welcome back"])
    history = [event for event in await read_history(bob, room_id) if event["type"] == "m.room.message"]
    assert [each["content"]["body"] for each in history] == ["for now", *missed, "welcome back"]
    await same_state(alice, bob, room_id)
