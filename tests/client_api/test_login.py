"""Tests of logging in and out over HTTP."""

from __future__ import annotations

import io

import jwt
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import globalLogPublisher

from homeserver.config.sections import Auth, JwtLogin, Logging, LogLevel, Rate, RateLimits
from homeserver.logs import make_observer
from homeserver.secret import Secret
from tests.client_api.helpers import V3, AccountsCase
from tests.homeserver.accounts.helpers import NOW, PASSWORD

KEY = "a secret of thirty-two characters or more"
ISSUER = JwtLogin(enabled=True, key=Secret(KEY), issuer="https://issuer.test", audiences=("plait",))


class PasswordLoginTests(AccountsCase):
    """Logging in by password."""

    async def test_by_user_id_localpart_and_the_old_field(self) -> None:
        """All forms lead to the account, in whatever case."""
        await self.register("alice")
        for user in ("alice", "@alice:plait.test", "Alice"):
            answer = await self.log_in(user, device_id="D", initial_device_display_name="Desk")
            self.assertEqual((answer.status, answer.json["user_id"]), (200, "@alice:plait.test"))
            self.assertEqual(answer.json["device_id"], "D")
        old = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
        answer = await self.ask("POST", V3 + "/login", old)
        self.assertEqual(answer.json["well_known"]["m.homeserver"]["base_url"], "https://matrix.plait.test/")

    async def test_flows_are_told(self) -> None:
        """Only what is configured."""
        flows = (await self.ask("GET", V3 + "/login")).json["flows"]
        self.assertEqual(flows, [{"type": "m.login.password"}])

    async def test_a_stranger_and_a_wrong_password_look_alike(self) -> None:
        """The same answer for a user who does not exist, with the work of a hash (security: L9)."""
        await self.register("alice")
        hashed: list[str] = []
        verify = self.world.parts.passwords._workers.run

        async def run(work: object, stored: str, password: str) -> object:
            hashed.append(stored[:9])
            return await verify(work, stored, password)  # type: ignore[arg-type]

        self.patch(self.world.parts.passwords, "_workers", type("Counted", (), {"run": staticmethod(run)}))
        answers = [await self.log_in(user, password="wrong password") for user in ("alice", "nobody")]
        self.assertEqual(answers[0].status, 403)
        self.assertEqual(answers[0].body, answers[1].body)
        self.assertEqual(hashed, ["$argon2id"] * 2)

    async def test_bad_logins_are_told_what_is_wrong(self) -> None:
        """Unknown types and identifiers, users of other servers, odd shapes: never a 500."""
        for body, status in (
            ({}, 400),
            ({"type": "m.login.sso"}, 400),
            ({"type": "m.login.password"}, 400),
            ({"type": "m.login.password", "identifier": {"type": "m.id.phone"}, "password": "x"}, 400),
            ({"type": "m.login.password", "identifier": {"type": "m.id.user"}, "password": "x"}, 400),
            ({"type": "m.login.password", "user": "@a:other.test", "password": "x"}, 403),
            ({"type": "m.login.password", "user": "a\0b", "password": "x"}, 403),
            ({"type": "m.login.password", "user": "a", "password": "x" * 1000}, 400),
            ({"type": "m.login.password", "user": "a", "password": ["x"]}, 400),
            ({"type": "m.login.password", "user": "a", "password": "x", "device_id": "D" * 300}, 400),
            ({"type": "org.matrix.login.jwt", "token": "x"}, 403),
            ({"type": "org.matrix.login.jwt"}, 400),
        ):
            answer = await self.ask("POST", V3 + "/login", body)
            self.assertEqual(answer.status, status, body)
        self.assertEqual((await self.ask("POST", V3 + "/login", {"type": "m.login.x"})).errcode, "M_UNKNOWN")

    async def test_logging_out(self) -> None:
        """The token and its device are gone; `all` ends every one."""
        one = (await self.register("alice"))["access_token"]
        others = [(await self.log_in("alice")).json["access_token"] for _ in range(2)]
        self.assertEqual((await self.ask("POST", V3 + "/logout", token=one)).status, 200)
        self.assertEqual(
            (await self.ask("GET", V3 + "/account/whoami", token=one)).errcode, "M_UNKNOWN_TOKEN"
        )
        devices = (await self.ask("GET", V3 + "/devices", token=others[0])).json["devices"]
        self.assertEqual(len(devices), 2)
        self.assertEqual((await self.ask("POST", V3 + "/logout/all", {}, token=others[0])).status, 200)
        for token in others:
            self.assertEqual((await self.ask("GET", V3 + "/devices", token=token)).status, 401)

    async def test_refreshing(self) -> None:
        """A refresh token gives new tokens; nonsense gives 401."""
        made = await self.register("alice", refresh_token=True)
        body = {"refresh_token": made["refresh_token"]}
        fresh = await self.ask("POST", V3 + "/refresh", body)
        self.assertEqual((fresh.status, fresh.json["expires_in_ms"]), (200, 300_000))
        answer = await self.ask("GET", V3 + "/account/whoami", token=fresh.json["access_token"])
        self.assertEqual(answer.json["user_id"], "@alice:plait.test")
        wrong = await self.ask("POST", V3 + "/refresh", {"refresh_token": "\ud800"})
        self.assertEqual(wrong.status, 400)
        self.assertEqual((await self.ask("POST", V3 + "/refresh", {"refresh_token": "x"})).status, 401)

    async def test_tokens_do_not_reach_the_log(self) -> None:
        """Neither header nor query nor body of a failing request is logged readably (security: L15, A2)."""
        token = (await self.register("alice"))["access_token"]
        stream = io.StringIO()
        observer = make_observer(Logging(level=LogLevel.DEBUG), stream)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        async def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        self.patch(type(self.world.parts.keepsakes.devices), "of_user", fail)
        for target in (V3 + "/devices", f"{V3}/devices?access_token={token}"):
            self.assertEqual((await self.ask("GET", target, token=token)).status, 500)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("ZeroDivisionError", stream.getvalue())
        self.assertNotIn(token, stream.getvalue())
        self.assertNotIn(PASSWORD, stream.getvalue())

    async def test_many_logins_at_once_are_served(self) -> None:
        """Hashing goes on beside the reactor; all get their answer (security: L8)."""
        await self.register("alice")
        answers = await gatherResults([Deferred.fromCoroutine(self.log_in("alice")) for _ in range(30)])
        self.assertEqual({answer.status for answer in answers}, {200})


class LimitedLoginTests(AccountsCase):
    """With rate limits."""

    options = {"rate_limits": RateLimits(login=Rate(per_second=0.1, burst=5))}

    async def test_guessing_is_slowed(self) -> None:
        """After a few tries no password is looked at, and the client is told to wait (security: L9)."""
        await self.register("alice")
        answers = [await self.log_in("alice", password="a wrong guess") for _ in range(20)]
        self.assertEqual([answer.status for answer in answers], [403] * 5 + [429] * 15)
        self.assertIn("retry_after_ms", answers[-1].json)


class JwtLoginTests(AccountsCase):
    """Logging in by an outside issuer's token."""

    options = {"auth": Auth(jwt=ISSUER)}

    def token(self, subject: str) -> str:
        """Make a token for somebody."""
        claims = {"sub": subject, "iss": "https://issuer.test", "aud": "plait", "exp": NOW // 1000 + 60}
        return jwt.encode(claims, KEY)

    async def login(self, token: str) -> int:
        """Log in, and give the status."""
        body = {"type": "org.matrix.login.jwt", "token": token}
        return (await self.ask("POST", V3 + "/login", body)).status

    async def test_a_token_opens_its_account(self) -> None:
        """A new subject gets an account, a known one theirs; odd names none."""
        for _ in range(2):
            self.assertEqual(await self.login(self.token("carol")), 200)
        for name in ("Carol", "a:b", "a b", "é"):
            self.assertEqual(await self.login(self.token(name)), 403)

    async def test_token_kinds_are_not_mixed_up(self) -> None:
        """An outside token is no access token, an access token no login (security: L3)."""
        access = (await self.register("alice"))["access_token"]
        self.assertEqual(await self.login(access), 403)
        answer = await self.ask("GET", V3 + "/account/whoami", token=self.token("alice"))
        self.assertEqual(answer.errcode, "M_UNKNOWN_TOKEN")

    async def test_every_login_looks_at_the_account(self) -> None:
        """A deactivated account cannot be opened by a token either (security: L4)."""
        await self.login(self.token("carol"))
        accounts = self.world.parts.accounts
        account = await accounts.get("@carol:plait.test")  # type: ignore[arg-type]
        await accounts.deactivate(account, erase=False, now=NOW)
        self.assertEqual(await self.login(self.token("carol")), 403)
