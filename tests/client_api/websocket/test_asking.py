"""Tests of frames that ask for something: requests, messages, receipts, typing, presence."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.client_api.websocket.helpers import ROOM, WsServer

V3 = "/_matrix/client/v3"


class AskingCase(SynchronousTestCase):
    """A server with one session."""

    def setUp(self) -> None:
        """Authenticate."""
        self.server = WsServer(frame_bytes=5000)
        self.client = self.server.live()
        self.client.frames()

    def ask(self, **frame: Any) -> Any:
        """Send a frame and take its answer."""
        self.client.send(**frame)
        return self.client.frame()

    def request(self, path: str, frame_id: Any = 1, **more: Any) -> Any:
        """Make a request and take its answer."""
        return self.ask(type="request", id=frame_id, method="GET", path=path, **more)


class RequestTests(AskingCase):
    """Any JSON endpoint."""

    def test_answers_are_those_of_http(self) -> None:
        """Answers have status and body as over HTTP, under the ID that was given."""
        answer = self.request(f"{V3}/echo", "a")
        self.assertEqual(answer, {"type": "response", "id": "a", "status": 200, "body": {"size": ""}})
        self.assertEqual(self.server.calls[-1].requester.user_id, "@alice:plait.test")
        self.assertEqual(self.request("/_matrix/nothing")["status"], 404)
        self.assertEqual(self.ask(type="request", id=1, method="POST", path=f"{V3}/echo")["status"], 405)

    def test_what_is_not_for_frames(self) -> None:
        """Pages and administration stay closed: the same route table and rights hold (security: W6)."""
        page = self.request(f"{V3}/page")
        self.assertEqual((page["status"], page["body"]["errcode"]), (404, "M_UNRECOGNIZED"))
        self.assertEqual(self.request("/_plait/admin")["status"], 403)
        self.assertEqual(self.request("/_plait/client/v1/ws")["status"], 404)
        for path in (
            "/_plait/./admin",
            "//_plait/admin",
            "/x/../_plait/admin",
            "http://h/_plait/admin",
            "ä",
            "",
        ):
            answer = self.request(path)
            self.assertIn(answer.get("status", answer.get("errcode")), (403, 404, "M_BAD_JSON"), path)

    def test_a_timeout_counts_as_0(self) -> None:
        """A `timeout` in the query, escaped or not, does not reach the endpoint."""
        for query in ("timeout=30000&a=b", "a=b&t%69meout=30000", "a=b"):
            self.request(f"{V3}/echo?{query}")
            call = self.server.calls[-1]
            self.assertEqual((call.query.get("timeout"), call.query.get("a")), (None, "b"))

    def test_an_answer_over_the_limit(self) -> None:
        """An answer over `frame_bytes` is 413 with M_TOO_LARGE."""
        answer = self.request(f"{V3}/echo?size=6000")
        self.assertEqual((answer["status"], answer["body"]["errcode"]), (413, "M_TOO_LARGE"))

    def test_at_most_32_are_under_way(self) -> None:
        """The 33rd request without an answer is refused; work that is given up counts on (security: W12)."""
        for number in range(32):
            self.client.send(type="request", id=number, method="GET", path=f"{V3}/wait")
        self.assertEqual(self.request(f"{V3}/wait", 99)["errcode"], "M_LIMIT_EXCEEDED")
        self.client.send(type="cancel", id=3)
        self.assertEqual(self.request(f"{V3}/wait", 99)["errcode"], "M_LIMIT_EXCEEDED")
        for waiting in self.server.waiting:
            waiting.callback(None)
        self.assertEqual([frame["id"] for frame in self.client.frames()], [n for n in range(32) if n != 3])
        self.assertEqual(self.request(f"{V3}/echo")["status"], 200)

    def test_ids_are_unique(self) -> None:
        """An ID that awaits its answer may not be used again; after `cancel` it may (security: W12)."""
        self.client.send(type="request", id=1, method="GET", path=f"{V3}/wait")
        self.assertEqual(self.request(f"{V3}/echo")["errcode"], "M_BAD_JSON")
        self.client.send(type="cancel", id=1)
        self.assertEqual(self.request(f"{V3}/echo")["status"], 200)
        self.server.waiting[0].callback(None)
        self.assertEqual(self.client.frames(), [])

    def test_nobody_is_told_after_the_end(self) -> None:
        """An answer that comes after the socket is lost goes nowhere."""
        self.client.send(type="request", id=1, method="GET", path=f"{V3}/wait")
        self.client.drop()
        self.server.waiting[0].callback(None)
        self.assertEqual(self.client.frames(), [])

    def test_odd_frames(self) -> None:
        """Frames of unknown types or with wrong members are refused by name; the session goes on."""
        unknown = self.ask(type="dance", id=4)
        self.assertEqual(
            (unknown["id"], unknown["errcode"], unknown["error"]),
            (4, "M_UNRECOGNIZED", "Unknown message type"),
        )
        self.assertEqual(self.ask(type="ack", seq=10)["errcode"], "M_BAD_JSON")
        self.assertEqual(self.ask(type="message", id=5, content=7, txn_id="t")["errcode"], "M_BAD_JSON")
        self.assertEqual(self.request(f"{V3}/echo")["status"], 200)


class MessageTests(AskingCase):
    """Messages."""

    def send(self, **more: Any) -> Any:
        """Send a message."""
        return self.ask(**{"type": "message", "id": 1, "txn_id": "t1", "content": "hello", **more})

    def test_to_a_room(self) -> None:
        """A text to a room is the event that `PUT …/send` would make, under the same transaction."""
        answer = self.send(room_id=ROOM)
        self.assertEqual((answer["type"], answer["id"], answer["event_id"]), ("message", 1, "$t1"))
        self.assertEqual((answer["room_id"], answer["txn_id"]), (ROOM, "t1"))
        self.assertEqual(answer["ts"], 1_700_000_000_124)
        call = self.server.calls[-1]
        self.assertEqual(call.path, {"room": ROOM, "type": "m.room.message", "txn": "t1"})
        self.assertEqual(call.body, {"body": "hello", "msgtype": "m.text"})

    def test_kinds(self) -> None:
        """`message_type` sets the msgtype where the content has none."""
        for kind, content, msgtype in (
            ("image", {"body": "a.png", "url": "mxc://x/y"}, "m.image"),
            ("file", "a.txt", "m.file"),
            ("text", {"body": "x", "msgtype": "m.notice"}, "m.notice"),
        ):
            self.send(room_id=ROOM, message_type=kind, content=content)
            self.assertEqual(self.server.calls[-1].body["msgtype"], msgtype)
        self.assertEqual(self.send(room_id=ROOM, message_type="video")["errcode"], "M_BAD_JSON")

    def test_texts_that_will_not_do(self) -> None:
        """An empty text is M_BAD_JSON, one of more than 5000 characters M_TOO_LARGE; nothing is sent."""
        server = WsServer()
        client = server.live()
        client.frames()
        for content, errcode in (
            ("", "M_BAD_JSON"),
            (" \n", "M_BAD_JSON"),
            ({}, "M_BAD_JSON"),
            ("é" * 5001, "M_TOO_LARGE"),
        ):
            client.send(type="message", id=1, txn_id="t", room_id=ROOM, content=content)
            self.assertEqual(client.frame()["errcode"], errcode)
        client.send(type="message", id=1, txn_id="t", room_id=ROOM, content="é" * 5000)
        self.assertEqual(client.frame()["type"], "message")
        self.assertEqual(len(server.calls), 1)

    def test_to_a_user(self) -> None:
        """A message to a user goes to the one conversation with them, found or made."""
        answer = self.send(to="@bob:plait.test")
        self.assertEqual(answer["room_id"], ROOM)
        self.send(to="@bob:plait.test", txn_id="t2")
        self.assertEqual(len(self.server.fakes.conversations), 1)

    def test_one_target(self) -> None:
        """One of `room_id` and `to` must be given, well formed."""
        self.assertEqual(self.send()["errcode"], "M_MISSING_PARAM")
        self.assertEqual(self.send(to="@bob:x", room_id=ROOM)["errcode"], "M_MISSING_PARAM")
        self.assertEqual(self.send(to="bob")["errcode"], "M_INVALID_PARAM")
        self.assertEqual(self.send(room_id="room")["errcode"], "M_INVALID_PARAM")

    def test_the_suspended_make_no_rooms(self) -> None:
        """A suspended user makes no conversation by writing to somebody (security: W6)."""
        client = self.server.live("mute")
        client.frames()
        client.send(type="message", id=1, txn_id="t", to="@bob:plait.test", content="hi")
        self.assertEqual(client.frame()["errcode"], "M_USER_SUSPENDED")
        self.assertEqual(self.server.fakes.conversations, {})


class SmallCommandTests(AskingCase):
    """Receipts, typing, presence."""

    def test_answers_only_where_asked(self) -> None:
        """With an `id` success is a response with `{}`; without, nothing."""
        frames = (
            {"type": "read", "room_id": ROOM, "event_id": "$e"},
            {"type": "typing", "room_id": ROOM},
            {"type": "presence", "presence": "unavailable"},
        )
        for frame in frames:
            self.client.send(**frame)
            self.assertEqual(self.client.frames(), [])
            answer = self.ask(id=1, **frame)
            self.assertEqual(answer, {"type": "response", "id": 1, "status": 200, "body": {}})

    def test_they_are_the_endpoints(self) -> None:
        """They do what the endpoints of HTTP do."""
        self.client.send(type="read", room_id=ROOM, event_id="$e", private=True, thread_id="$t")
        call = self.server.calls[-1]
        self.assertEqual(call.path, {"room": ROOM, "kind": "m.read.private", "event": "$e"})
        self.assertEqual(call.body, {"thread_id": "$t"})
        self.client.send(type="typing", room_id=ROOM, typing=False)
        self.assertEqual(self.server.calls[-1].body["typing"], False)
        self.client.send(type="presence", presence="offline", status_msg="away")
        self.assertEqual(self.server.calls[-1].body, {"presence": "offline", "status_msg": "away"})
