"""Tests of the states of a session: authenticating, renewing, ending."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.accounts.requester import Requester
from protocol.errors import Unavailable
from storage.database import DatabaseGone
from tests.client_api.websocket.helpers import WsServer, requester, texts, token


class AuthenticatingTests(SynchronousTestCase):
    """Who gets in."""

    def setUp(self) -> None:
        """Make a server."""
        self.server = WsServer()

    def test_auth_opens_the_session(self) -> None:
        """A good `auth` is answered by `auth`, then what changed; the device is there."""
        self.server.fakes.say("one")
        first, sync = self.server.live().frames()
        self.assertEqual(first, {"type": "auth", "user_id": "@alice:plait.test", "device_id": "PHONE"})
        self.assertEqual((sync["type"], sync["seq"], texts([sync])), ("sync", 1, ["one"]))
        self.assertEqual(sync["next_batch"], str(token(1)))
        self.assertEqual(self.server.fakes.presences, [("PHONE", "online")])

    def test_frames_before_auth(self) -> None:
        """Before `auth` only `ping` and `pong` are taken; all else is M_FORBIDDEN."""
        client = self.server.open()
        client.frames()
        client.send(type="request", id=7, method="GET", path="/")
        answer = client.frame()
        self.assertEqual(
            (answer["id"], answer["errcode"], answer["error"]), (7, "M_FORBIDDEN", "Not authenticated")
        )
        client.send(type="ping")
        self.assertEqual(client.frame()["type"], "pong")
        client.send(type="pong", seq=5)
        self.assertEqual(client.frames(), [])

    def test_a_bad_token(self) -> None:
        """A bad token is told `bye` with `auth_failed`, and repeated nowhere (security: W9)."""
        client = self.server.live("secret-of-nobody")
        error, bye = client.frames()
        self.assertEqual(error["errcode"], "M_UNKNOWN_TOKEN")
        self.assertEqual(bye, {"type": "bye", "reason": "auth_failed", "reconnect": "never"})
        self.assertEqual(client.close_code, 4011)
        self.assertNotIn("secret", str((error, bye)))

    def test_silence_before_auth(self) -> None:
        """A client that does not authenticate within 10 s is told `bye` (security: W4)."""
        client = self.server.open()
        client.frames()
        self.server.task_clock.advance(9.9)
        self.assertEqual(client.frames(), [])
        self.server.task_clock.advance(0.2)
        self.assertEqual(client.frame()["reason"], "auth_timeout")
        self.server.task_clock.advance(5)
        self.assertTrue(client.transport.disconnecting or client.transport.disconnected)

    def test_positions_that_cannot_be_used(self) -> None:
        """A forged, foreign or future `since` begins with everything (security: W10)."""
        self.server.fakes.say("one", "two")
        forged = (
            "nonsense",
            "s1_99_0_r1.0",
            "s2_1_0_r1.0",
            "s1_" + "9" * 18 + "_0_r1.0",
            "",
            "t1_1",
            "s1_-1_0_r1.0",
        )
        for since in forged:
            error, auth, sync = self.server.live(since=since).frames()
            self.assertEqual((error["type"], error["errcode"]), ("error", "M_UNKNOWN_POS"), since)
            self.assertEqual((auth["type"], texts([sync])), ("auth", ["one", "two"]))

    def test_a_good_position_resumes(self) -> None:
        """With `since` the session gets what came after it, and nothing else."""
        self.server.fakes.say("one", "two", "three")
        self.assertEqual(texts(self.server.live(since=str(token(1))).frames()), ["two", "three"])

    def test_filter_and_presence_are_checked(self) -> None:
        """A filter or presence that will not do is told before the session ends."""
        for auth, errcode in (
            ({"filter": "no-such"}, "M_NOT_FOUND"),
            ({"filter": {"room": 3}}, "M_BAD_JSON"),
            ({"set_presence": "asleep"}, "M_INVALID_PARAM"),
        ):
            error, bye = self.server.live(**auth).frames()
            self.assertEqual((error["errcode"], bye["reason"]), (errcode, "auth_failed"))
        self.assertEqual(self.server.live(filter="1").frames()[0]["type"], "auth")

    def test_a_locked_account(self) -> None:
        """A locked account does not get in."""
        self.server.tokens.table["locked"] = requester("locked", 9, "X", locked=True)
        self.assertEqual(self.server.live("locked").frames()[0]["errcode"], "M_USER_LOCKED")


class EndingTests(SynchronousTestCase):
    """How sessions end."""

    def setUp(self) -> None:
        """Make a server with one session."""
        self.server = WsServer(connections_per_user=2)
        self.client = self.server.live()
        self.client.frames()

    def test_a_device_has_one_socket(self) -> None:
        """A second socket of a device replaces the first; the device stays there."""
        second = self.server.live()
        bye = self.client.frame()
        self.assertEqual(
            (bye["reason"], bye["reconnect"], self.client.close_code), ("replaced", "never", 4001)
        )
        second.frames()
        self.client.drop()
        self.server.fakes.say("one")
        self.assertEqual(texts(second.frames()), ["one"])
        self.assertNotIn(("PHONE", "gone"), self.server.fakes.presences)

    def test_a_user_has_so_many(self) -> None:
        """Past `connections_per_user` the oldest is told `bye`, of this user alone (security: W4)."""
        bob, desk = self.server.live("bob"), self.server.live("alice-desk")
        self.assertEqual(self.client.frames(), [])
        self.server.live("alice-pad")
        self.assertEqual(self.client.frame()["reason"], "too_many_connections")
        self.assertEqual(self.server.fakes.presences.count(("PHONE", "gone")), 1)
        for client in (bob, desk):
            self.assertNotIn("bye", [frame["type"] for frame in client.frames()])

    def test_a_revoked_session_ends(self) -> None:
        """A session whose token is revoked is told `bye` and gets no further frame (security: W7)."""
        del self.server.tokens.table["alice"]
        self.server.fakes.revoke(1)
        bye = self.client.frame()
        self.assertEqual((bye["reason"], self.client.close_code), ("logged_out", 4012))
        self.server.fakes.say("secret")
        self.assertEqual(self.client.frames(), [])

    def test_a_token_revoked_while_it_is_let_in(self) -> None:
        """A token revoked between its look-up and the session's begin gets nothing (security: W7)."""
        reading = _Held(self.server.fakes)
        self.patch(self.server.fakes, "get", reading.get)
        client = self.server.live("alice-desk", filter="1")
        del self.server.tokens.table["alice-desk"]
        self.server.fakes.revoke(1)
        self.server.fakes.texts.append(b'"secret"')
        reading.go_on()
        frames = client.frames()
        self.assertEqual([frame["type"] for frame in frames], ["auth", "bye"])
        self.assertEqual(frames[1]["reason"], "logged_out")
        self.assertEqual(self.server.fakes.presences[-1], ("DESK", "gone"))

    def test_a_token_revoked_while_it_is_renewed(self) -> None:
        """The same for a new token of a live session, which the old one's check does not see."""
        looking = _Held(self.server.tokens)
        self.patch(self.server.tokens, "requester", looking.requester)
        self.client.send(type="auth", token="alice-new")
        del self.server.tokens.table["alice-new"]
        looking.late = True
        self.server.fakes.revoke(1)
        looking.go_on()
        looking.go_on()
        self.server.fakes.say("secret")
        frames = self.client.frames()
        self.assertEqual([frame["type"] for frame in frames], ["auth", "bye"])

    def test_two_checks_side_by_side(self) -> None:
        """An older check that found the token good does not let out what a newer one must see to."""
        looking = _Held(self.server.tokens)
        self.patch(self.server.tokens, "requester", looking.requester)
        self.server.fakes.revoke(1)
        first, looking.waiting = looking.waiting, []
        del self.server.tokens.table["alice"]
        looking.late = True
        self.server.fakes.revoke(1)
        self.server.fakes.say("secret")
        for call in first:
            call.callback(None)
        self.assertEqual(self.client.frames(), [])
        looking.go_on()
        self.assertEqual(self.client.frame()["reason"], "logged_out")

    def test_a_check_when_the_server_is_overloaded(self) -> None:
        """A token that cannot be looked up just now is looked up again; nobody is logged out for that."""
        answers: list[Exception] = [Unavailable("Too much work is waiting"), DatabaseGone("away")]
        look_up = self.server.tokens.requester

        async def requester(*args: Any, **options: Any) -> Requester:
            if answers:
                raise answers.pop(0)
            return await look_up(*args, **options)

        self.patch(self.server.tokens, "requester", requester)
        self.server.fakes.revoke(1)
        self.server.fakes.say("one")
        self.assertEqual(self.client.frames(), [])
        self.server.task_clock.advance(1.1)
        self.assertEqual(self.client.frames(), [])
        self.server.task_clock.advance(1.1)
        self.assertEqual(texts(self.client.frames()), ["one"])
        self.flushLoggedErrors(Unavailable, DatabaseGone)

    def test_an_account_that_is_locked(self) -> None:
        """A session of an account that is locked is told so and ends, and gets nothing more."""
        self.server.tokens.table["alice"] = evolve(self.server.tokens.table["alice"], locked=True)
        self.server.fakes.revoke(1)
        self.server.fakes.say("secret")
        error, bye = self.client.frames()
        self.assertEqual((error["errcode"], bye["reason"]), ("M_USER_LOCKED", "auth_failed"))

    def test_another_session_ends(self) -> None:
        """A session goes on when another one of the user ends."""
        self.server.fakes.revoke(1)
        self.server.fakes.say("one")
        self.assertEqual(texts(self.client.frames()), ["one"])

    def test_a_replaced_token(self) -> None:
        """A token replaced by a refresh leaves 10 s to send the new one (security: W7)."""
        self.server.tokens.replaced.add("alice")
        self.server.fakes.revoke(1)
        self.assertEqual(self.client.frame(), {"type": "token_expiring", "expires_in_ms": 10_000})
        self.client.send(type="auth", token="alice-new")
        self.assertEqual(self.client.frame()["type"], "auth")
        self.server.task_clock.advance(11)
        self.assertEqual(self.client.frames(), [])

    def test_a_token_that_expires(self) -> None:
        """A session is warned before its token ends, and ends with it (security: W7)."""
        now = int(self.server.task_clock.seconds() * 1000)
        self.server.tokens.ends["alice-new"] = now + 120_000
        self.client.send(type="auth", token="alice-new")
        self.assertEqual(self.client.frame()["type"], "auth")
        found = []
        for _ in range(13):
            self.server.task_clock.advance(10)
            self.client.send(type="pong")
            found += [frame for frame in self.client.frames() if frame["type"] != "ping"]
        self.assertEqual([frame["type"] for frame in found], ["token_expiring", "error", "bye"])
        self.assertEqual(found[0]["expires_in_ms"], 60_000)
        self.assertEqual(found[2]["reason"], "auth_failed")

    def test_renewing_may_not_change_who_one_is(self) -> None:
        """Another user's or device's token ends a live session (security: W7)."""
        for other in ("bob", "alice-desk", "nobody"):
            client = self.server.live()
            client.frames()
            client.send(type="auth", token=other)
            self.assertEqual(client.frames()[-1]["reason"], "auth_failed")

    def test_changed_rights_hold_at_once(self) -> None:
        """A suspension holds for the next frame of an open socket (security: W7)."""
        self.server.tokens.table["alice"] = evolve(self.server.tokens.table["alice"], suspended=True)
        self.server.fakes.revoke(1)
        self.client.send(type="message", id=1, room_id="!r:x", content="hi", txn_id="t")
        self.assertEqual(self.client.frame()["errcode"], "M_USER_SUSPENDED")

    def test_heartbeats(self) -> None:
        """The server pings every heartbeat; a silent client is told `bye` (security: W4)."""
        self.server.task_clock.advance(26.9)
        self.assertEqual(self.client.frames(), [])
        self.server.task_clock.advance(6.2)
        self.assertEqual(self.client.frame(), {"type": "ping"})
        self.server.task_clock.advance(11)
        self.assertEqual(self.client.frames(), [])
        self.server.task_clock.advance(1)
        bye = self.client.frames()[-1]
        self.assertEqual((bye["reason"], bye["reconnect"], self.client.close_code), ("silent", "now", 4003))
        self.assertEqual(self.server.fakes.presences[-1], ("PHONE", "gone"))

    def test_a_client_that_answers_stays(self) -> None:
        """A client that answers pings stays, however long."""
        for _ in range(40):
            self.server.task_clock.advance(15)
            self.client.send(type="pong")
        self.assertEqual({frame["type"] for frame in self.client.frames()}, {"ping"})

    def test_a_lost_socket(self) -> None:
        """A socket that breaks takes the device's presence with it, and its wake-ups."""
        self.client.drop()
        self.assertEqual(self.server.fakes.presences[-1], ("PHONE", "gone"))
        self.assertEqual(self.server.fakes.wakers, {1: []})
        self.assertEqual(self.server.api.connections, 0)

    def test_a_restart_spreads_clients(self) -> None:
        """A server that stops tells everybody when to come back, each a little later, and waits for them."""
        bob, stranger = self.server.live("bob"), self.server.open()
        for client in (bob, stranger):
            client.frames()
        done = Deferred.fromCoroutine(self.server.api.stop())
        clients = (self.client, bob, stranger)
        byes = [client.frame() for client in clients]
        self.assertEqual({(bye["reason"], bye["reconnect"]) for bye in byes}, {("restart", "later")})
        self.assertEqual(len({bye["retry_after_ms"] for bye in byes}), 3)
        self.assertNoResult(done)
        self.assertEqual(self.server.open().status, 503)
        for client in clients:
            client.drop()
        self.successResultOf(done)


class _Held:
    """Answers what was asked of `parts` only when told to: as things stood when asked, or `late`, as then."""

    def __init__(self, parts: Any) -> None:
        self._look_up = getattr(parts, "requester", None)
        self.waiting: list[Deferred[None]] = []
        self.late = False

    async def get(self, user_nid: int, filter_id: str) -> bytes:
        """Give a filter."""
        await self._turn()
        return b"{}"

    async def requester(self, token: str, **options: Any) -> Requester:
        """Give whose token it was."""
        assert self._look_up is not None
        if self.late:
            await self._turn()
        found: Requester = await self._look_up(token, **options)
        if not self.late:
            await self._turn()
        return found

    async def _turn(self) -> None:
        self.waiting.append(Deferred())
        await self.waiting[-1]

    def go_on(self) -> None:
        """Answer."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


class FiguresTests(SynchronousTestCase):
    """What is counted."""

    def test_sessions_are_counted(self) -> None:
        """Live sessions, how they began, and why they ended, those that never were live too."""
        server = WsServer()

        def figure(name: str, **labels: str) -> float:
            return server.figures.get_sample_value(f"plait_websocket_{name}", labels) or 0

        first = server.live()
        server.live("alice-desk", since=str(token(0)))
        server.live("bob", since="nonsense")
        self.assertEqual(figure("sessions"), 3)
        for how in ("first", "resumed", "refused"):
            self.assertEqual(figure("sessions_begun_total", how=how), 1, how)
        first.drop()
        server.live("nobody")
        self.assertEqual(figure("sessions"), 2)
        for reason in ("lost", "auth_failed"):
            self.assertEqual(figure("sessions_ended_total", reason=reason), 1, reason)
