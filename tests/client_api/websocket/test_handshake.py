"""Tests of opening a WebSocket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from client_api.websocket.handshake import check_origin, upgrade_request
from client_api.websocket.wiring import PATH
from protocol.errors import Forbidden, MatrixError
from tests.client_api.websocket.helpers import WsServer

ORIGIN = "https://chat.example:8443"


class HandshakeTests(SynchronousTestCase):
    """What opens a socket, and what does not."""

    def test_a_good_handshake_is_greeted(self) -> None:
        """A handshake that offers the subprotocol is accepted, and `hello` comes first of all."""
        client = WsServer().open()
        self.assertEqual(client.status, 101, client.body)
        self.assertIn("Sec-WebSocket-Protocol: plait.v1.json", client.head)
        hello = client.frame()
        self.assertEqual(hello["type"], "hello")
        limits = {
            "auth_ms": 10_000,
            "frame_bytes": 1_048_576,
            "requests": 32,
            "window_frames": 64,
            "window_bytes": 4_194_304,
            "text_message_chars": 5000,
            "delivery_status_members": 20,
        }
        self.assertEqual(hello["limits"], limits)
        self.assertEqual(hello["server"]["name"], "plait.test")

    def test_without_the_subprotocol_it_is_refused(self) -> None:
        """A handshake that does not offer `plait.v1.json` is answered with 400."""
        for offered in (None, "plait.v2.json", "Plait.v1.json", ""):
            self.assertEqual(WsServer().open({"Sec-WebSocket-Protocol": offered}).status, 400, offered)

    def test_headers_that_are_none_of_a_handshake(self) -> None:
        """A request that lacks a header of the handshake is answered with 400, not taken over."""
        server = WsServer()
        for name in ("Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"):
            self.assertEqual(server.open({name: None}).status, 400, name)
        self.assertEqual(server.open({"Sec-WebSocket-Version": "8"}).status, 400)
        self.assertEqual(server.open({"Sec-WebSocket-Key": "short"}).status, 400)

    def test_a_foreign_page_may_not_open_a_socket(self) -> None:
        """Origins not on the list, null, with a suffix, another port or case are 403 (security: W1)."""
        server = WsServer(allowed_origins=[ORIGIN, "null"])
        self.assertEqual(server.open({"Origin": ORIGIN}).status, 101)
        self.assertEqual(server.open().status, 101)
        foreign = (
            "https://evil.example",
            "null",
            "",
            "https://goodchat.example:8443",
            "https://chat.example:8443.evil.example",
            "https://chat.example",
            "https://chat.example:443",
            "http://chat.example:8443",
            "https://CHAT.example:8443",
            ORIGIN + "/",
        )
        for origin in foreign:
            self.assertEqual(server.open({"Origin": origin}).status, 403, origin)
        self.assertRaises(Forbidden, check_origin, [ORIGIN.encode(), ORIGIN.encode()], [ORIGIN])

    def test_a_cookie_authenticates_nobody(self) -> None:
        """A cookie that holds a token does not authenticate (security: W1)."""
        client = WsServer().open({"Cookie": "access_token=alice"})
        client.frames()
        client.send(type="auth")
        self.assertEqual([frame["type"] for frame in client.frames()], ["error", "bye"])

    def test_a_token_in_the_url_is_refused(self) -> None:
        """A token in the URL is answered with 400, a good one too, and not echoed (security: W9)."""
        for name in ("access_token", "token"):
            client = WsServer().open(target=f"{PATH}?{name}=alice")
            self.assertEqual(client.status, 400)
            self.assertNotIn(b"alice", client.body)

    def test_a_ticket_authenticates(self) -> None:
        """A ticket in the URL serves an `auth` without token; one that is not good is answered with 401."""
        server = WsServer()
        self.assertEqual(server.open(target=f"{PATH}?ticket=spent").status, 401)
        client = server.open(target=f"{PATH}?ticket=ticket-of-alice")
        client.frames()
        client.send(type="auth")
        self.assertEqual(client.frames()[0]["user_id"], "@alice:plait.test")

    def test_the_bearer_header_authenticates(self) -> None:
        """A token in the handshake's header serves an `auth` without one."""
        client = WsServer().open({"Authorization": "Bearer alice"})
        client.frames()
        client.send(type="auth")
        self.assertEqual(client.frames()[0]["user_id"], "@alice:plait.test")

    def test_odd_headers_do_no_harm(self) -> None:
        """Headers that are not ASCII change nothing, or are refused with 400 (security: W11)."""
        server = WsServer()
        self.assertEqual(server.open({"X-Odd": "ä\u2028€", "Origin": "http://[:"}).status, 101)
        self.assertEqual(server.open({"Sec-WebSocket-Protocol": "plait.v1.jsön"}).status, 400)
        self.assertEqual(server.open({"Sec-WebSocket-Extensions": "\x01;;=,"}).status, 101)

    @given(st.dictionaries(st.sampled_from([b"upgrade", b"connection", b"sec-websocket-key"]), st.binary()))
    def test_any_bytes_in_headers(self, odd: dict[bytes, bytes]) -> None:
        """Whatever bytes headers hold, the handshake is accepted or refused with an error (security: W11)."""
        good = {
            b"upgrade": b"websocket",
            b"connection": b"upgrade",
            b"sec-websocket-version": b"13",
            b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
            b"sec-websocket-protocol": b"plait.v1.json",
        }
        headers = good | odd
        try:
            request = upgrade_request(
                lambda name: [headers[name]] if name in headers else [], compression=True
            )
        except MatrixError:
            return
        self.assertEqual(request.count(b"\r\n\r\n"), 1)

    def test_many_strangers_of_one_address(self) -> None:
        """An address has a bounded number of sockets that do not authenticate (security: W4)."""
        server = WsServer()
        clients = [server.open() for _ in range(101)]
        self.assertEqual([client.status for client in clients], [101] * 100 + [429])
        clients[0].drop()
        self.assertEqual(server.open().status, 101)

    def test_it_can_be_switched_off(self) -> None:
        """A server whose operator has switched it off has no such endpoint."""
        self.assertEqual(WsServer(enabled=False).open().status, 404)
