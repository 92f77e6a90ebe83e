"""The WebSocket client API over real sockets to a real process: nothing is lost, nothing comes twice.

Source: protocol/spec.md, chapter 4.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.interop.client import User
from tests.interop.network import NETWORKS, Kind, Network, sleep
from tests.scenarios.sockets import Reader

MESSAGES = 1000
DROPS = 20
STUCK = 20
LARGE = "x" * 8000
FLAT_BYTES = 60_000_000


class WebSocketContract:
    """What clients of one Plait see over their sockets, whatever the database."""

    timeout = 240
    postgres: bool

    async def test_drops_while_messages_pass(self) -> None:
        """A client that drops and reconnects 20 times while 1,000 messages pass sees each once, in order."""
        alice, bob, room_id = await self._room()
        speaker, listener = Reader(alice), Reader(bob)
        await speaker.connect()
        await listener.connect()
        for number in range(MESSAGES):
            speaker.send(type="message", id=number, room_id=room_id, content=str(number), txn_id=f"n{number}")
            if number % 20 == 19:
                await speaker.until(lambda: len(speaker.answers("message")) > number, "answers")  # noqa: B023
            if number % (MESSAGES // DROPS) == 24:
                await listener.drop()
                await listener.connect()
        await listener.until(lambda: len(listener.bodies) >= MESSAGES, "all messages")
        self.assertEqual(listener.bodies, [str(number) for number in range(MESSAGES)])
        await speaker.drop()
        await listener.drop()

    async def test_a_server_that_is_killed(self) -> None:
        """A message without an answer is sent again after a crash and is there once."""
        network, (alice, bob, room_id) = await self._network(), await self._room()
        speaker, listener = Reader(alice), Reader(bob)
        await speaker.connect()
        await listener.connect()
        for number in range(10):
            speaker.send(type="message", id=number, room_id=room_id, content=str(number), txn_id=f"k{number}")
        await speaker.until(lambda: speaker.answers("message"), "an answer")
        network.nodes[0].server.program.kill()
        for reader in (speaker, listener):
            await reader.until(lambda: reader.close_code is not None, "the end of the connection")  # noqa: B023
        await network.nodes[0].server.start(sleep)
        await speaker.connect()
        await listener.connect()
        for number in range(10):
            speaker.send(type="message", id=number, room_id=room_id, content=str(number), txn_id=f"k{number}")
        await speaker.until(lambda: len(speaker.answers("message")) == 10, "answers")
        await listener.until(lambda: len(listener.bodies) >= 10, "all messages")
        self.assertEqual(sorted(listener.bodies), [str(number) for number in range(10)])
        await speaker.drop()
        await listener.drop()

    async def test_readers_that_are_stuck(self) -> None:
        """Readers that take nothing cost no memory, and get one delta when they read again."""
        network, (alice, bob, room_id) = await self._network(), await self._room()
        readers = [Reader(await bob.api.login(bob.user_id), acknowledges=False) for _ in range(STUCK)]
        for reader in readers:
            await reader.connect()
            await reader.until(lambda: reader.syncs > 0, "the first sync")  # noqa: B023
            reader.protocol.transport.pauseProducing()
        pid = network.nodes[0].server.program.pid
        for number in range(100):
            await alice.say(room_id, f"warm {number} {LARGE}")
        before = _resident(pid)
        for number in range(MESSAGES // 2):
            await alice.say(room_id, f"{number} {LARGE}")
        grown = _resident(pid) - before
        self.assertLess(grown, FLAT_BYTES)
        reader = readers[0]
        reader.acknowledges = True
        reader.protocol.transport.resumeProducing()
        reader.send(type="ack", seq=reader.syncs)
        last = f"{MESSAGES // 2 - 1} {LARGE}"
        await reader.until(lambda: last in reader.bodies, "the last message")
        self.assertEqual(len(reader.bodies), len(set(reader.bodies)))
        for each in readers:
            await each.drop()

    async def test_a_restart_is_announced(self) -> None:
        """A server that stops tells its clients when to come back."""
        network, (alice, bob, _) = await self._network(), await self._room()
        readers = [Reader(alice), Reader(bob)]
        for reader in readers:
            await reader.connect()
        await network.nodes[0].server.program.stop(sleep)
        for reader in readers:
            await reader.until(lambda: reader.close_code is not None, "the end of the connection")  # noqa: B023
        byes = [reader.answers("bye")[0] for reader in readers]
        self.assertEqual({(bye["reason"], bye["reconnect"]) for bye in byes}, {("restart", "later")})
        self.assertEqual(len({bye["retry_after_ms"] for bye in byes}), 2)
        await network.nodes[0].server.start(sleep)

    async def test_who_is_kicked_hears_no_more(self) -> None:
        """A message sent right behind a kick does not reach the one who was kicked (security: W8)."""
        alice, bob, room_id = await self._room()
        speaker, listener = Reader(alice), Reader(bob)
        await speaker.connect()
        await listener.connect()
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/kick"
        speaker.send(type="message", id=1, room_id=room_id, content="before", txn_id="before")
        await listener.until(lambda: listener.bodies == ["before"], "the first message")
        speaker.send(type="request", id=2, method="POST", path=path, body={"user_id": bob.user_id})
        for number in range(20):
            content = f"secret {number}"
            speaker.send(type="message", id=f"s{number}", room_id=room_id, content=content, txn_id=content)
        await speaker.until(lambda: len(speaker.answers("message")) == 21, "answers")
        await listener.until(lambda: room_id in listener.left, "the kick")
        told = listener.bodies[1:]
        self.assertEqual(speaker.answers("response")[0]["status"], 200)
        history = await alice.request(
            "GET", f"/v3/rooms/{quote(room_id)}/messages", query={"dir": "b", "limit": 40}
        )
        types = [event["type"] for event in history["chunk"]]
        behind = types.index("m.room.member")
        self.assertEqual(len(told), 20 - behind)
        await speaker.drop()
        await listener.drop()

    async def test_a_logout_ends_the_session(self) -> None:
        """A device that logs out over HTTP is told `bye` on its socket (security: W7)."""
        alice, bob, room_id = await self._room()
        listener = Reader(bob)
        await listener.connect()
        await bob.request("POST", "/v3/logout", {})
        await listener.until(lambda: listener.close_code is not None, "the end of the connection")
        self.assertEqual([bye["reason"] for bye in listener.answers("bye")], ["logged_out"])
        await alice.say(room_id, "secret")
        self.assertEqual(listener.bodies, [])

    async def test_one_conversation_of_two(self) -> None:
        """Two users who write to each other at the same moment have one conversation."""
        alice, bob, _ = await self._room()
        readers = (Reader(alice), Reader(bob))
        for reader in readers:
            await reader.connect()
        for reader, other in zip(readers, (bob, alice), strict=True):
            for number in range(3):
                txn_id = f"c{number}"
                reader.send(type="message", id=number, to=other.user_id, content=txn_id, txn_id=txn_id)
        for reader in readers:
            await reader.until(
                lambda: len(reader.answers("message") + reader.answers("error")) == 3,  # noqa: B023
                "answers",
            )
        answers = [answer for reader in readers for answer in reader.answers("message")]
        self.assertEqual(len({answer["room_id"] for answer in answers}), 1, answers)
        for reader in readers:
            await reader.drop()

    async def test_an_invited_user_answers(self) -> None:
        """Who was invited to a conversation joins it by writing to the other."""
        alice, bob, _ = await self._room()
        speaker, listener = Reader(alice), Reader(bob)
        for reader, other in ((speaker, bob), (listener, alice)):
            await reader.connect()
            reader.send(type="message", id=1, to=other.user_id, content="hi", txn_id="i1")
            await reader.until(
                lambda: bool(reader.answers("message") + reader.answers("error")),  # noqa: B023
                "an answer",
            )
        self.assertEqual(speaker.answers("error") + listener.answers("error"), [])
        rooms = {reader.answers("message")[0]["room_id"] for reader in (speaker, listener)}
        self.assertEqual(len(rooms), 1)
        for reader in (speaker, listener):
            await reader.drop()

    async def _network(self) -> Network:
        return await NETWORKS.get((Kind.PLAIT,), postgres=self.postgres)

    async def _room(self) -> tuple[User, User, str]:
        """Register two users and put them into a room."""
        node = (await self._network()).nodes[0]
        alice, bob = await node.user("alice"), await node.user("bob")
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        return alice, bob, room_id


class WebSocketOnSqliteTests(WebSocketContract, TestCase):
    """Clients of one Plait on SQLite."""

    postgres = False


class WebSocketOnPostgresTests(WebSocketContract, TestCase):
    """Clients of one Plait on PostgreSQL."""

    postgres = True


def _resident(pid: int) -> int:
    """Give the resident memory of a process, in bytes."""
    with Path(f"/proc/{pid}/statm").open() as file:
        return int(file.read().split()[1]) * 4096
