"""Users of two Plaits hold one conversation, through everything that happens to servers.

Two real processes federate over TLS on loopback. Run with `PLAIT_TEST_CONTROL=1`, two Synapses play.
"""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet import defer
from twisted.trial.unittest import TestCase

from tests.interop import conversations
from tests.interop.client import ApiError, User
from tests.interop.network import NETWORKS, Kind, Network, Node, sleep
from tests.interop.programs import ProgramFailed, wait_until
from tests.interop.watching import Watcher, read_history

VERSION = "12"
MISSED = 500
SENDERS = 8
KILL_AFTER = 40


class FederationContract:
    """The scenarios, on whatever database a subclass chooses."""

    postgres: bool
    timeout = 300

    async def test_join_by_alias(self) -> None:
        """A remote user joins by the room's alias, and both talk, redact, read and type."""
        network, alice, bob = await self._meet()
        host = network.nodes[0].name
        name = alice.user_id[1:].split(":")[0]
        room_id = await alice.create_room(preset="public_chat", room_version=VERSION, room_alias_name=name)
        assert await bob.join(f"#{name}:{host}") == room_id
        hers, his = Watcher(alice), Watcher(bob)
        await hers.until_member(room_id, bob.user_id, "join")
        await alice.say(room_id, "welcome")
        await his.until_texts(room_id, ["welcome"])
        await bob.say(room_id, "thank you")
        await hers.until_texts(room_id, ["thank you"])

    async def test_talk(self) -> None:
        """Messages, redactions, receipts and typing go both ways until the guest leaves."""
        host, guest = (await self._network()).nodes
        await conversations.talk(host, guest, VERSION)

    async def test_published_rooms(self) -> None:
        """A user finds rooms in the directory of the other server."""
        host, guest = (await self._network()).nodes
        await conversations.find_published_rooms(host, guest, VERSION)

    async def test_delivery(self) -> None:
        """Who says something is told when it has come to a reader's device on the other server."""
        network, alice, bob = await self._meet()
        room_id = await conversations.open_room(alice, VERSION)
        await bob.join(room_id, network.nodes[0].name)
        hers, his = Watcher(alice), Watcher(bob)
        await hers.until_member(room_id, bob.user_id, "join")
        await his.until_state(room_id, "m.room.create", "", await alice.state(room_id, "m.room.create"))
        for speaker, watcher, reader in ((alice, hers, his), (bob, his, hers)):
            event_id = await speaker.say(room_id, f"{speaker.user_id} asks")
            await reader.until_texts(room_id, [f"{speaker.user_id} asks"])
            await reader.poll()
            name, view = reader.user.user_id, watcher.rooms[room_id]
            await watcher.until(lambda: view.delivered.get(name) == event_id, "the delivery mark")  # noqa: B023

    async def test_invite(self) -> None:
        """A remote user sees who invites her to what, and joins a private room; another she refuses."""
        _, alice, bob = await self._meet()
        his, hers = Watcher(bob), Watcher(alice)
        first = await alice.create_room(preset="private_chat", room_version=VERSION, name="Parlour")
        await alice.member_action(first, "invite", bob.user_id)
        await his.until(lambda: first in his.invites, "the invite")
        names = [event["content"] for event in his.invites[first] if event["type"] == "m.room.name"]
        assert names == [{"name": "Parlour"}]
        await bob.join(first)
        await hers.until_member(first, bob.user_id, "join")
        second = await alice.create_room(preset="private_chat", room_version=VERSION, invite=[bob.user_id])
        await his.until(lambda: second in his.invites, "the second invite")
        await bob.leave(second)
        await hers.until_member(second, bob.user_id, "leave")

    async def test_kick_and_ban(self) -> None:
        """A kicked remote user may come back, a banned one is refused until unbanned."""
        network, alice, bob = await self._meet()
        host = network.nodes[0].name
        room_id = await conversations.open_room(alice, VERSION)
        his = Watcher(bob)
        await bob.join(room_id, host)
        await his.poll()
        await alice.member_action(room_id, "kick", bob.user_id)
        await his.until(lambda: room_id in his.left, "the kick")
        await bob.join(room_id, host)
        await his.until(lambda: room_id not in his.left, "the room again")
        await alice.member_action(room_id, "ban", bob.user_id)
        await his.until(lambda: room_id in his.left, "the ban")
        refusal = await _refusal(bob.join(room_id, host))
        assert (refusal.status, refusal.errcode) == (403, "M_FORBIDDEN"), refusal
        await alice.member_action(room_id, "unban", bob.user_id)
        await bob.join(room_id, host)
        assert bob.user_id in await alice.members(room_id)

    async def test_knock(self) -> None:
        """A remote user knocks, is seen knocking, is let in by an invite, and joins."""
        network, alice, bob = await self._meet()
        room_id = await alice.create_room(
            preset="private_chat",
            room_version=VERSION,
            initial_state=[_join_rules({"join_rule": "knock"})],
        )
        hers, his = Watcher(alice), Watcher(bob)
        await bob.knock(room_id, network.nodes[0].name)
        await hers.until_member(room_id, bob.user_id, "knock")
        await alice.member_action(room_id, "invite", bob.user_id)
        await his.until(lambda: room_id in his.invites, "the invite")
        await bob.join(room_id)
        await hers.until_member(room_id, bob.user_id, "join")

    async def test_restricted_join(self) -> None:
        """A member of the allowed room may join the restricted one across servers; a stranger may not."""
        network, alice, bob = await self._meet()
        stranger = await network.nodes[1].user("stranger")
        host = network.nodes[0].name
        lobby = await conversations.open_room(alice, VERSION)
        allow = [{"type": "m.room_membership", "room_id": lobby}]
        inner = await alice.create_room(
            preset="private_chat",
            room_version=VERSION,
            initial_state=[_join_rules({"join_rule": "restricted", "allow": allow})],
        )
        await bob.join(lobby, host)
        await bob.join(inner, host)
        joined = await alice.state(inner, "m.room.member", bob.user_id)
        assert joined["membership"] == "join"
        assert joined["join_authorised_via_users_server"] == alice.user_id
        refusal = await _refusal(stranger.join(inner, host))
        assert refusal.status == 403, refusal

    async def test_partition(self) -> None:
        """State set on both sides of a partition resolves equally on both, and no message is missing."""
        host, guest = (await self._network()).nodes
        await conversations.part_and_meet(host, guest, VERSION)

    async def test_stopped_server_catches_up(self) -> None:
        """A server that was stopped during 500 messages shows all of them, in order, once it is back."""
        network, alice, bob = await self._meet()
        host, guest = network.nodes
        room_id = await conversations.open_room(alice, VERSION)
        await bob.join(room_id, host.name)
        his = Watcher(bob)
        await his.poll()
        assert await guest.server.program.stop(sleep) == 0
        sent = [await alice.say(room_id, f"missed {number}") for number in range(MISSED)]
        await guest.server.start(sleep)
        await alice.say(room_id, "are you back?")
        await his.until_texts(room_id, ["are you back?"])
        assert await _message_ids(bob, room_id) == [*sent, await _last_id(alice, room_id)]

    async def test_killed_server_loses_nothing(self) -> None:
        """After `kill -9` amid load, every acknowledged event is on both servers, exactly once."""
        network, alice, bob = await self._meet()
        host = network.nodes[0]
        room_id = await conversations.open_room(alice, VERSION)
        await bob.join(room_id, host.name)
        acknowledged: list[str] = []
        load = [defer.ensureDeferred(_send_until_cut(alice, room_id, acknowledged)) for _ in range(SENDERS)]
        await wait_until(lambda: len(acknowledged) >= KILL_AFTER, "load", sleep, 60)
        host.server.program.kill()
        await defer.gatherResults(load)
        await host.server.start(sleep)
        await alice.say(room_id, "back again")
        his = Watcher(bob)
        await his.until_texts(room_id, ["back again"])
        last = await _last_id(alice, room_id)
        for user in (alice, bob):
            found = await _message_ids(user, room_id)
            assert len(found) == len(set(found)), "an event came twice"
            assert {*acknowledged, last} <= set(found), f"lost: {set(acknowledged) - set(found)}"
        await conversations.same_state(alice, bob, room_id)

    async def _network(self) -> Network:
        """Give two Plaits."""
        return await NETWORKS.get((Kind.PLAIT, Kind.PLAIT), postgres=self.postgres)

    async def _meet(self) -> tuple[Network, User, User]:
        """Give two Plaits with a new user on each."""
        network = await self._network()
        host, guest = network.nodes
        await _revive(host)
        await _revive(guest)
        return network, await host.user("alice"), await guest.user("bob")


class FederationOnSqliteTests(FederationContract, TestCase):
    """Two Plaits, each on SQLite."""

    postgres = False


class FederationOnPostgresTests(FederationContract, TestCase):
    """Two Plaits, each on its own PostgreSQL database."""

    postgres = True


async def _revive(node: Node) -> None:
    """Start a server that an earlier, failed test left dead."""
    if not node.server.program.is_running:
        await node.server.start(sleep)


def _join_rules(content: dict[str, object]) -> dict[str, object]:
    """Write initial state with join rules."""
    return {"type": "m.room.join_rules", "state_key": "", "content": content}


async def _refusal(request: Awaitable[object]) -> ApiError:
    """Await a request that must be refused, and give the refusal."""
    try:
        await request
    except ApiError as refusal:
        return refusal
    raise AssertionError("the request was not refused")


async def _message_ids(user: User, room_id: str) -> list[str]:
    """Give the IDs of all messages in a room's history, oldest first."""
    history = await read_history(user, room_id)
    return [event["event_id"] for event in history if event["type"] == "m.room.message"]


async def _last_id(user: User, room_id: str) -> str:
    """Give the ID of the newest event."""
    return str((await user.messages(room_id, limit=1))["chunk"][0]["event_id"])


async def _send_until_cut(user: User, room_id: str, acknowledged: list[str]) -> None:
    """Send messages until the server is gone; note which were acknowledged."""
    try:
        while True:
            acknowledged.append(await user.say(room_id, f"load {len(acknowledged)}"))
    except ApiError:
        raise
    except Exception as gone:
        if not acknowledged:
            raise ProgramFailed("no message was acknowledged") from gone
