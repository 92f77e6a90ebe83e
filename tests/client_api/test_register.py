"""Tests of making accounts over HTTP."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from homeserver.config.sections import Config, Registration, RegistrationMode
from homeserver.secret import Secret
from storage import registration_tokens
from tests.client_api.helpers import V1, V3, AccountsCase
from tests.homeserver.accounts.helpers import PASSWORD

REGISTER = V3 + "/register"
SIGNED = "/_synapse/admin/v1/register"


class OpenRegistrationTests(AccountsCase):
    """Where anybody may come in."""

    async def test_in_two_steps(self) -> None:
        """Without auth the server tells the flows; with it the account is made and logged in."""
        body = {"username": "alice", "password": PASSWORD, "initial_device_display_name": "Phone"}
        asked = await self.ask("POST", REGISTER, body)
        self.assertEqual(asked.status, 401)
        self.assertEqual(asked.json["flows"], [{"stages": ["m.login.dummy"]}])
        auth = {"type": "m.login.dummy", "session": asked.json["session"]}
        made = await self.ask("POST", REGISTER, body | {"auth": auth})
        self.assertEqual(made.json["user_id"], "@alice:plait.test")
        who = await self.ask("GET", V3 + "/account/whoami", token=made.json["access_token"])
        self.assertEqual(who.json["device_id"], made.json["device_id"])
        again = await self.ask("POST", REGISTER, body | {"username": "bob", "auth": auth})
        self.assertEqual(again.status, 401)

    async def test_options_of_a_registration(self) -> None:
        """A device ID, no login, refresh tokens, a name of the server's choice."""
        self.assertEqual((await self.register("a", device_id="D"))["device_id"], "D")
        self.assertNotIn("access_token", await self.register("b", inhibit_login=True))
        self.assertIn("refresh_token", await self.register("c", refresh_token=True))
        body = {"password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        made = await self.ask("POST", REGISTER, body)
        self.assertRegex(made.json["user_id"], r"^@[a-z]{12}:plait\.test$")

    async def test_names_have_a_grammar_and_one_owner(self) -> None:
        """What cannot be had is told apart: taken, or not a name (security: L14)."""
        await self.register("alice")
        for name, errcode in (
            ("alice", "M_USER_IN_USE"),
            ("Alice", "M_INVALID_USERNAME"),
            ("al ice", "M_INVALID_USERNAME"),
            ("аlice", "M_INVALID_USERNAME"),
            ("a:b", "M_INVALID_USERNAME"),
            ("a" * 300, "M_INVALID_USERNAME"),
        ):
            answer = await self.ask("POST", REGISTER, {"username": name, "password": PASSWORD})
            self.assertEqual((answer.status, answer.errcode), (400, errcode), name)
        available = await self.ask("GET", REGISTER + "/available?username=bob")
        self.assertEqual(available.json, {"available": True})
        self.assertEqual(
            (await self.ask("GET", REGISTER + "/available?username=alice")).errcode, "M_USER_IN_USE"
        )

    async def test_passwords_have_a_policy(self) -> None:
        """Too short, too long, empty, missing (security: L8)."""
        for password, errcode in (
            ("short", "M_WEAK_PASSWORD"),
            ("x" * 513, "M_INVALID_PARAM"),
            ("", "M_INVALID_PARAM"),
            (None, "M_MISSING_PARAM"),
        ):
            body = {"username": "a", "password": password, "auth": {"type": "m.login.dummy"}}
            self.assertEqual((await self.ask("POST", REGISTER, body)).errcode, errcode, password)

    async def test_guests_stay_outside(self) -> None:
        """There are no guest accounts here."""
        answer = await self.ask("POST", REGISTER + "?kind=guest", {})
        self.assertEqual(answer.errcode, "M_GUEST_ACCESS_FORBIDDEN")

    async def test_the_shared_secret_is_not_known_here(self) -> None:
        """Without one in the configuration there is no such endpoint."""
        self.assertEqual((await self.ask("GET", SIGNED)).errcode, "M_UNRECOGNIZED")


class ClosedRegistrationTests(AccountsCase):
    """The default: closed, but for the shared secret."""

    options = {"registration": Registration(shared_secret=Secret("a shared secret"))}

    async def signed(self, name: str, nonce: str, secret: str = "a shared secret", **more: Any) -> Any:
        """Ask with a signature."""
        text = "\0".join((nonce, name, PASSWORD, "admin"))
        mac = hmac.new(secret.encode(), text.encode(), hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": PASSWORD, "admin": True, "mac": mac}
        return await self.ask("POST", SIGNED, body | more)

    async def nonce(self) -> str:
        """Take a nonce."""
        return str((await self.ask("GET", SIGNED)).json["nonce"])

    async def test_the_default_lets_nobody_in(self) -> None:
        """A configuration that says nothing refuses (security: L12)."""
        self.assertIs(Config(server_name="x").registration.mode, RegistrationMode.CLOSED)
        validity = V1 + "/register/m.login.registration_token/validity?token=x"
        for target in (REGISTER + "/available?username=x", validity):
            self.assertEqual((await self.ask("GET", target)).errcode, "M_FORBIDDEN")
        body = {"username": "a", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        self.assertEqual((await self.ask("POST", REGISTER, body)).errcode, "M_FORBIDDEN")

    async def test_the_shared_secret_makes_administrators(self) -> None:
        """A right signature makes the account, a nonce once, a wrong signature never (security: L12)."""
        nonce = await self.nonce()
        made = await self.signed("root", nonce)
        self.assertEqual((made.status, made.json["user_id"]), (200, "@root:plait.test"))
        who = await self.ask("GET", V3 + "/admin/whois/@nobody:plait.test", token=made.json["access_token"])
        self.assertEqual(who.errcode, "M_NOT_FOUND")
        self.assertEqual((await self.signed("root2", nonce)).errcode, "M_INVALID_PARAM")
        self.assertEqual((await self.signed("root2", "made up")).errcode, "M_INVALID_PARAM")
        self.assertEqual((await self.signed("root2", await self.nonce(), "wrong")).status, 403)
        self.assertEqual((await self.signed("root2", await self.nonce(), admin=False)).status, 403)
        late = await self.nonce()
        self.clock.advance(61)
        self.assertEqual((await self.signed("root2", late)).errcode, "M_INVALID_PARAM")


class TokenRegistrationTests(AccountsCase):
    """Where a token lets people in."""

    options = {"registration": Registration(mode=RegistrationMode.TOKEN, tokens=(Secret("configured"),))}

    async def test_only_with_a_token(self) -> None:
        """The dummy stage is not offered, and does not count (security: L2)."""
        body = {"username": "alice", "password": PASSWORD}
        asked = await self.ask("POST", REGISTER, body | {"auth": {"type": "m.login.dummy"}})
        self.assertEqual(asked.status, 401)
        self.assertEqual(asked.json["flows"], [{"stages": ["m.login.registration_token"]}])
        auth = {"type": "m.login.registration_token", "session": asked.json["session"]}
        wrong = await self.ask("POST", REGISTER, body | {"auth": auth | {"token": "guess"}})
        self.assertEqual((wrong.status, wrong.errcode), (401, "M_FORBIDDEN"))
        made = await self.ask("POST", REGISTER, body | {"auth": auth | {"token": "configured"}})
        self.assertEqual(made.status, 200)

    async def test_counted_tokens_run_out(self) -> None:
        """A token of one use lets one account in, and is told as invalid afterwards."""
        await self.database.write(registration_tokens.add, "once", 1, None)
        validity = V1 + "/register/m.login.registration_token/validity?token=once"
        self.assertEqual((await self.ask("GET", validity)).json, {"valid": True})
        auth = {"type": "m.login.registration_token", "token": "once"}
        await self.register("alice", auth=auth)
        self.assertEqual((await self.ask("GET", validity)).json, {"valid": False})
        body = {"username": "bob", "password": PASSWORD, "auth": auth}
        self.assertEqual((await self.ask("POST", REGISTER, body)).status, 401)

    async def test_the_stage_can_be_completed_on_a_page(self) -> None:
        """A client without the stage opens the page, which escapes all from outside (security: C13)."""
        body = {"username": "alice", "password": PASSWORD}
        session = (await self.ask("POST", REGISTER, body)).json["session"]
        page = f"{V3}/auth/m.login.registration_token/fallback/web?session={session}"
        shown = await self.ask("GET", page)
        self.assertIn(b'name="token"', shown.body)
        self.assertIn("frame-ancestors 'none'", shown.headers["content-security-policy"])
        wrong = await self.ask("POST", page, b"token=%3Cscript%3E")
        self.assertIn(b"not valid", wrong.body)
        self.assertNotIn(b"<script", wrong.body)
        pending = await self.ask("POST", REGISTER, body | {"auth": {"session": session}})
        self.assertEqual(pending.status, 401)
        self.assertIn(b"Done", (await self.ask("POST", page, b"token=configured")).body)
        made = await self.ask("POST", REGISTER, body | {"auth": {"session": session}})
        self.assertEqual(made.status, 200)
        odd = await self.ask("GET", f"{V3}/auth/%3Cscript%3E/fallback/web?session=%3Cscript%3E")
        self.assertEqual(odd.status, 404)
        self.assertNotIn(b"<script", odd.body)
