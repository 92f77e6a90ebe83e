"""Tests of what is pushed, and of what holds it back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.client_api.websocket.helpers import WsClient, WsServer, texts, token


def session(server: WsServer, **auth: object) -> WsClient:
    """Give a live client that has taken all so far."""
    client = server.live(**auth)
    client.frames()
    return client


class PushingTests(SynchronousTestCase):
    """Deltas as frames."""

    def test_each_change_comes_once_in_order(self) -> None:
        """What comes is pushed as it comes, counted from 1, each frame with the place after it."""
        server = WsServer()
        client = session(server, since=str(token(0)))
        for text in ("one", "two", "three"):
            server.fakes.say(text)
        found = client.frames()
        self.assertEqual([frame["seq"] for frame in found], [1, 2, 3])
        self.assertEqual(texts(found), ["one", "two", "three"])
        self.assertEqual(found[-1]["next_batch"], str(token(3)))

    def test_a_wake_up_without_news_sends_nothing(self) -> None:
        """A wake-up that finds nothing sends nothing."""
        server = WsServer()
        client = session(server, since=str(token(0)))
        server.fakes.wake()
        self.assertEqual(client.frames(), [])

    def test_a_large_delta_comes_in_frames(self) -> None:
        """A large delta is cut by rooms, the most recent first; only the last frame has `next_batch`."""
        server = WsServer()
        server.fakes.say("one")
        server.fakes.rooms_of_first = 6
        found = [frame for frame in server.live().frames() if frame["type"] == "sync"]
        self.assertGreater(len(found), 3)
        self.assertEqual([("next_batch" in frame) for frame in found], [False] * (len(found) - 1) + [True])
        rooms = [room for frame in found for room in frame["rooms"]["join"]]
        self.assertEqual(rooms, ["!room:plait.test", "!r1:x", "!r2:x", "!r3:x", "!r4:x", "!r5:x"])

    def test_a_full_window_builds_nothing(self) -> None:
        """Past the window nothing is built; then one delta tells all that was missed (security: W5)."""
        server = WsServer(window_frames=2)
        client = session(server, since=str(token(0)))
        for number in range(10):
            server.fakes.say(str(number))
        self.assertEqual(texts(client.frames()), ["0", "1"])
        built = len(server.fakes.built)
        server.fakes.say("10")
        self.assertEqual(len(server.fakes.built), built)
        client.send(type="ack", seq=1)
        found = client.frames()
        self.assertEqual((len(found), texts(found)), (1, [str(number) for number in range(2, 11)]))

    def test_an_acknowledgement_tells_what_has_come(self) -> None:
        """What is acknowledged is known to be with the client; what was only sent is not."""
        server = WsServer()
        client = session(server, since=str(token(0)))
        for text in ("one", "two", "three"):
            server.fakes.say(text)
        client.send(type="ack", seq=1)
        self.assertEqual(server.fakes.arrivals, [("@alice:plait.test", 1)])
        client.send(type="pong", seq=3)
        self.assertEqual(server.fakes.arrivals[1:], [("@alice:plait.test", 3)])

    def test_a_pong_acknowledges(self) -> None:
        """The `seq` of a `pong` frees the window as `ack` does."""
        server = WsServer(window_bytes=1)
        client = session(server, since=str(token(0)))
        server.fakes.say("one")
        server.fakes.say("two")
        self.assertEqual(texts(client.frames()), ["one"])
        client.send(type="pong", seq=1)
        self.assertEqual(texts(client.frames()), ["two"])

    def test_a_stuck_reader(self) -> None:
        """While a socket takes nothing no delta is built and nothing is read (security: W5)."""
        server = WsServer()
        client = session(server, since=str(token(0)))
        client.pause()
        for number in range(1000):
            server.fakes.say(str(number))
        self.assertEqual((client.frames(), server.fakes.built), ([], [0]))
        self.assertEqual(client.transport.producerState, "paused")
        client.resume()
        self.assertEqual(client.transport.producerState, "producing")
        found = client.frames()
        self.assertEqual((len(found), len(texts(found))), (1, 1000))

    def test_a_reader_stuck_for_long(self) -> None:
        """A slow client is not cut off for its silence, but one that takes nothing for ten minutes is."""
        server = WsServer()
        client = session(server)
        client.pause()
        server.task_clock.pump([30.0] * 19)
        self.assertEqual(client.frames(), [])
        server.task_clock.pump([30.0] * 3)
        self.assertEqual(client.frame()["reason"], "silent")

    def test_to_device_messages_wait_for_the_acknowledgement(self) -> None:
        """A to-device message is dropped when its frame is acknowledged; news goes on meanwhile."""
        server = WsServer()
        client = session(server, since=str(token(0)))
        server.fakes.messages.append(b'{"type":"m.key"}')
        server.fakes.say("one")
        server.fakes.say("two")
        found = client.frames()
        self.assertEqual([len(frame.get("to_device", {}).get("events", ())) for frame in found], [1, 0])
        self.assertEqual(texts(found), ["one", "two"])
        self.assertEqual(server.fakes.dropped, [0])
        client.send(type="ack", seq=1)
        self.assertEqual(server.fakes.dropped, [0, 1])

    def test_a_delta_that_cannot_be_built(self) -> None:
        """A delta that fails is built again a little later; nothing is lost."""
        server = WsServer()
        client = session(server, since=str(token(0)))
        server.fakes.failing = 1
        server.fakes.say("one")
        self.assertEqual(client.frames(), [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        server.task_clock.advance(2)
        self.assertEqual(texts(client.frames()), ["one"])

    def test_responses_go_ahead(self) -> None:
        """A response is not held back by a full window."""
        server = WsServer(window_frames=1)
        client = session(server, since=str(token(0)))
        server.fakes.say("one")
        server.fakes.say("two")
        client.frames()
        client.send(type="request", id=1, method="GET", path="/_matrix/client/v3/echo")
        self.assertEqual(client.frame()["type"], "response")

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.sampled_from(["say", "ack", "drop", "pause", "resume", "read"]), max_size=60))
    def test_nothing_is_lost_and_nothing_comes_twice(self, steps: list[str]) -> None:
        """However a client acknowledges, stalls and reconnects, it sees every text once, in order."""
        server = WsServer(window_frames=2)
        seen: list[str] = []
        place, last, said = str(token(0)), 0, 0
        client = server.live(since=place)

        def read() -> None:
            nonlocal place, last
            for frame in client.frames():
                if frame["type"] == "sync":
                    seen.extend(texts([frame]))
                    last, place = frame["seq"], frame.get("next_batch", place)

        for step in [*steps, "resume", "drop"]:
            if step == "say":
                server.fakes.say(str(said))
                said += 1
            elif step == "ack":
                client.send(type="ack", seq=last)
            elif step == "drop":
                client.drop()
                client.frames()
                client, last = server.live(since=place), 0
            elif step == "read":
                read()
            elif step == "pause":
                client.pause()
            else:
                client.resume()
        read()
        self.assertEqual(seen, [str(number) for number in range(said)])
