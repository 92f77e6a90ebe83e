"""Tests of what users do with their accounts over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from homeserver.accounts.registration import Newcomer
from tests.client_api.helpers import V1, V3, AccountsCase
from tests.homeserver.accounts.helpers import NOW, PASSWORD
from tests.homeserver.http.helpers import Answer

ID = "@alice:plait.test"
NEW = "a new password"


class Alice(AccountsCase):
    """A server with one user, logged in as `self.token`."""

    async def setUp(self) -> None:
        """Register her."""
        await super().setUp()
        made = await self.register("alice", device_id="PHONE")
        self.token, self.nid = made["access_token"], 0

    async def as_alice(self, method: str, target: str, content: Any = None) -> Answer:
        """Make a request with her token."""
        return await self.ask(method, target, content, token=self.token)

    async def proof(self, method: str, target: str, body: Any, token: str | None = None) -> dict[str, Any]:
        """Give a right `auth` for one operation."""
        asked = await self.ask(method, target, body, token=token or self.token)
        self.assertEqual(asked.status, 401, asked.body)
        return {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": PASSWORD,
            "session": asked.json["session"],
        }


class ConfirmingTests(Alice):
    """User-interactive authentication before something grave."""

    target = V3 + "/account/password"
    body = {"new_password": NEW}

    async def test_a_token_alone_does_not_do(self) -> None:
        """Each grave operation asks for the password, and tells so (security: L2)."""
        for method, target, body in (
            ("POST", self.target, self.body),
            ("POST", V3 + "/account/deactivate", {}),
            ("DELETE", V3 + "/devices/PHONE", {}),
            ("DELETE", V3 + "/devices/PHONE", None),
            ("POST", V3 + "/delete_devices", {"devices": ["PHONE"]}),
        ):
            for auth in (None, {"type": "m.login.dummy"}, {"type": "m.login.password", "password": "wrong"}):
                full = body if auth is None or body is None else body | {"auth": auth}
                answer = await self.as_alice(method, target, full)
                self.assertEqual(answer.status, 401, (target, auth))
                self.assertEqual(answer.json["flows"], [{"stages": ["m.login.password"]}])
        self.assertEqual((await self.log_in("alice")).status, 200)

    async def test_a_session_is_good_for_one_operation(self) -> None:
        """Not for another body, path, method, user or device, and not twice (security: L2)."""
        auth = await self.proof("POST", self.target, self.body)
        bob = (await self.register("bob"))["access_token"]
        desk = (await self.log_in("alice")).json["access_token"]
        without_password = {"session": auth["session"]}
        for token, method, target, body in (
            (self.token, "POST", self.target, {"new_password": "something else"}),
            (self.token, "POST", V3 + "/account/deactivate", self.body),
            (self.token, "DELETE", V3 + "/devices/PHONE", self.body),
            (bob, "POST", self.target, self.body),
            (desk, "POST", self.target, self.body),
        ):
            answer = await self.ask(method, target, body | {"auth": auth}, token=token)
            self.assertEqual(answer.status, 401, (target, body))
            self.assertNotEqual(answer.json["session"], auth["session"])
        self.assertEqual(
            (await self.as_alice("POST", self.target, self.body | {"auth": without_password})).status, 401
        )
        done = await self.as_alice("POST", self.target, self.body | {"auth": auth})
        self.assertEqual(done.status, 200, done.body)
        replayed = await self.as_alice(
            "POST", self.target, self.body | {"auth": auth | {"password": "wrong"}}
        )
        self.assertEqual(replayed.status, 401)

    async def test_somebody_elses_password_does_not_do(self) -> None:
        """A stage is checked for this very account (security: L2)."""
        auth = await self.proof("POST", self.target, self.body)
        await self.register("bob", password="the password of bob")
        for identifier in (
            {"identifier": {"type": "m.id.user", "user": "bob"}, "password": "the password of bob"},
            {"identifier": {"type": "m.id.user", "user": "bob"}, "password": PASSWORD},
            {"user": "@bob:plait.test", "identifier": None},
        ):
            body = self.body | {"auth": auth | identifier}
            answer = await self.as_alice("POST", self.target, body)
            self.assertEqual((answer.status, answer.errcode), (401, "M_FORBIDDEN"))

    async def test_a_session_expires(self) -> None:
        """After a quarter of an hour it begins anew."""
        auth = await self.proof("POST", self.target, self.body)
        self.clock.advance(16 * 60)
        answer = await self.as_alice("POST", self.target, self.body | {"auth": auth})
        self.assertEqual(answer.status, 401)

    async def test_no_password_no_confirmation(self) -> None:
        """An account without a password takes none, whatever is sent (security: L2)."""
        account = await self.world.parts.registration.register(Newcomer("dave"), NOW)
        token = (await self.world.login(account)).access_token
        auth = {"type": "m.login.password", "password": "anything at all"}
        answer = await self.ask("POST", self.target, self.body | {"auth": auth}, token=token)
        self.assertEqual((answer.status, answer.errcode), (403, "M_FORBIDDEN"))

    async def test_odd_shapes_are_a_400(self) -> None:
        """`auth` of a wrong type never is a 500."""
        for auth in ([], "x", {"session": 1}, {"type": []}, {"type": "m.login.password", "identifier": 3}):
            answer = await self.as_alice("POST", self.target, self.body | {"auth": auth})
            self.assertIn(answer.status, (400, 401), auth)


class PasswordTests(Alice):
    """Changing the password, and leaving."""

    async def change(self, **more: Any) -> None:
        """Change it."""
        body = {"new_password": NEW} | more
        auth = await self.proof("POST", V3 + "/account/password", body)
        answer = await self.as_alice("POST", V3 + "/account/password", body | {"auth": auth})
        self.assertEqual(answer.status, 200, answer.body)

    async def test_a_new_password_logs_other_devices_out(self) -> None:
        """The device that changed it stays."""
        other = (await self.log_in("alice")).json["access_token"]
        await self.change()
        self.assertEqual((await self.log_in("alice")).status, 403)
        self.assertEqual((await self.log_in("alice", password=NEW)).status, 200)
        self.assertEqual((await self.ask("GET", V3 + "/devices", token=other)).status, 401)
        self.assertEqual((await self.as_alice("GET", V3 + "/devices")).status, 200)

    async def test_others_may_stay(self) -> None:
        """If the client says so."""
        other = (await self.log_in("alice")).json["access_token"]
        await self.change(logout_devices=False)
        self.assertEqual((await self.ask("GET", V3 + "/devices", token=other)).status, 200)

    async def test_deactivation_ends_everything(self) -> None:
        """Tokens, password, profile, name: gone for good; the rooms are left (security: L4)."""
        target = V3 + "/account/deactivate"
        await self.as_alice("PUT", f"{V3}/user/{ID}/account_data/m.x", {"secret": 1})
        auth = await self.proof("POST", target, {"erase": True})
        answer = await self.as_alice("POST", target, {"erase": True, "auth": auth})
        self.assertEqual(answer.json, {"id_server_unbind_result": "no-support"})
        self.assertEqual((await self.as_alice("GET", V3 + "/devices")).status, 401)
        self.assertEqual((await self.log_in("alice")).status, 403)
        self.assertEqual((await self.ask("GET", f"{V3}/profile/{ID}")).status, 404)
        self.assertEqual(self.world.rooms.left, [ID])
        body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        self.assertEqual((await self.ask("POST", V3 + "/register", body)).errcode, "M_USER_IN_USE")

    async def test_who_and_where(self) -> None:
        """whoami, contact addresses, capabilities, versions, well-known, whois."""
        self.assertEqual(
            (await self.as_alice("GET", V3 + "/account/whoami")).json,
            {"user_id": ID, "device_id": "PHONE", "is_guest": False},
        )
        self.assertEqual((await self.as_alice("GET", V3 + "/account/3pid")).json, {"threepids": []})
        capabilities = (await self.as_alice("GET", V3 + "/capabilities")).json["capabilities"]
        self.assertEqual(capabilities["m.room_versions"]["default"], "12")
        self.assertIn("v1.11", (await self.ask("GET", "/_matrix/client/versions")).json["versions"])
        known = await self.ask("GET", "/.well-known/matrix/client")
        self.assertEqual(known.json["m.homeserver"]["base_url"], "https://matrix.plait.test/")
        whois = await self.as_alice("GET", f"{V3}/admin/whois/{ID}")
        self.assertEqual((whois.json["user_id"], list(whois.json["devices"])), (ID, ["PHONE"]))
        (session,) = whois.json["devices"]["PHONE"]["sessions"]
        self.assertEqual([set(one) for one in session["connections"]], [{"ip", "last_seen", "user_agent"}])
        await self.register("bob")
        self.assertEqual((await self.as_alice("GET", V3 + "/admin/whois/@bob:plait.test")).status, 403)


class DeviceTests(Alice):
    """The list of devices."""

    async def test_naming_and_removing(self) -> None:
        """A device can be named, looked up and removed; unknown ones are a 404."""
        self.assertEqual(
            (await self.as_alice("PUT", V3 + "/devices/PHONE", {"display_name": "é" * 100})).status, 200
        )
        self.assertEqual(
            (await self.as_alice("PUT", V3 + "/devices/PHONE", {"display_name": "x" * 101})).status, 400
        )
        self.assertEqual((await self.as_alice("PUT", V3 + "/devices/X", {"display_name": "x"})).status, 404)
        self.assertEqual((await self.as_alice("GET", V3 + "/devices/X")).status, 404)
        await self.log_in("alice", device_id="NEW")
        new = (await self.as_alice("GET", V3 + "/devices/NEW")).json
        self.assertEqual(set(new), {"device_id", "display_name", "last_seen_ip", "last_seen_ts"})
        one = (await self.as_alice("GET", V3 + "/devices/PHONE")).json
        self.assertEqual((one["device_id"], one["display_name"]), ("PHONE", "é" * 100))
        other = (await self.log_in("alice", device_id="DESK")).json["access_token"]
        auth = await self.proof("DELETE", V3 + "/devices/DESK", {})
        self.assertEqual((await self.as_alice("DELETE", V3 + "/devices/DESK", {"auth": auth})).status, 200)
        self.assertEqual((await self.ask("GET", V3 + "/devices", token=other)).status, 401)

    async def test_removing_many(self) -> None:
        """All that are named go, with their sessions; others' devices do not."""
        await self.register("bob", device_id="BOBS")
        for name in ("A", "B", "C"):
            await self.log_in("alice", device_id=name)
        body = {"devices": ["A", "B", "BOBS", "nothing"]}
        auth = await self.proof("POST", V3 + "/delete_devices", body)
        await self.as_alice("POST", V3 + "/delete_devices", body | {"auth": auth})
        left = (await self.as_alice("GET", V3 + "/devices")).json["devices"]
        self.assertEqual([device["device_id"] for device in left], ["C", "PHONE"])
        self.assertEqual((await self.world.parts.keepsakes.devices.device_ids("@bob:plait.test")), ["BOBS"])


class ProfileTests(Alice):
    """What users tell of themselves."""

    async def test_fields_are_set_and_shown(self) -> None:
        """Name, avatar, time zone and fields of one's own; rooms hear of name and avatar alone."""
        for field, value in (
            ("displayname", "Alice ☃"),
            ("avatar_url", "mxc://plait.test/abc"),
            ("m.tz", "Europe/Berlin"),
            ("org.example.pets", [{"cat": 3}]),
        ):
            answer = await self.as_alice("PUT", f"{V3}/profile/{ID}/{field}", {field: value})
            self.assertEqual(answer.status, 200, answer.body)
            shown = await self.ask("GET", f"{V3}/profile/{ID}/{field}")
            self.assertEqual(shown.json, {field: value})
        self.assertEqual(len((await self.ask("GET", f"{V3}/profile/{ID}")).json), 4)
        self.assertEqual(self.world.rooms.changed, [ID, ID])
        await self.as_alice("DELETE", f"{V3}/profile/{ID}/m.tz")
        self.assertEqual((await self.ask("GET", f"{V3}/profile/{ID}/m.tz")).status, 404)
        await self.as_alice("PUT", f"{V3}/profile/{ID}/displayname", {"displayname": ""})
        self.assertEqual((await self.ask("GET", f"{V3}/profile/{ID}/displayname")).status, 404)

    async def test_bounds(self) -> None:
        """Wrong types, long names, large profiles and other people's are refused."""
        long = "k" * 256
        for field, body, errcode in (
            ("displayname", {"displayname": 3}, "M_BAD_JSON"),
            ("displayname", {"displayname": "x" * 257}, "M_INVALID_PARAM"),
            ("displayname", {}, "M_MISSING_PARAM"),
            ("m.tz", {"m.tz": "no zone!"}, "M_INVALID_PARAM"),
            (long, {long: 1}, "M_KEY_TOO_LARGE"),
            ("org.example.big", {"org.example.big": "x" * 66_000}, "M_PROFILE_TOO_LARGE"),
            *(
                (name, {name: 1}, "M_INVALID_PARAM")
                for name in ("pets", "Org.example", "org.bär", "org.", "a b.c")
            ),
        ):
            answer = await self.as_alice("PUT", f"{V3}/profile/{ID}/{quote(field)}", body)
            self.assertEqual((answer.status, answer.errcode), (400, errcode))
        other = await self.as_alice("PUT", f"{V3}/profile/@bob:plait.test/displayname", {"displayname": "x"})
        self.assertEqual(other.status, 403)

    async def test_remote_profiles_are_asked_for(self) -> None:
        """Of the server they are on."""
        found = await self.ask("GET", f"{V3}/profile/@remote:far.test/displayname")
        self.assertEqual(found.json, {"displayname": "Remote"})
        self.assertEqual((await self.ask("GET", f"{V3}/profile/@none:far.test")).status, 404)

    async def test_the_directory_shows_whom_one_may_know(self) -> None:
        """Nobody whom one shares no room with; wildcards are letters (security: C7, A8)."""
        await self.register("bob")
        for term in ("bob", "%", "_", "!", ""):
            body = {"search_term": term}
            answer = await self.as_alice("POST", V3 + "/user_directory/search", body)
            self.assertEqual(answer.json, {"results": [], "limited": False})


class AccountDataTests(Alice):
    """What clients keep."""

    async def test_put_and_get(self) -> None:
        """One's own, by type; what the server keeps is refused."""
        target = f"{V3}/user/{ID}/account_data/"
        self.assertEqual((await self.as_alice("GET", target + "m.x")).status, 404)
        await self.as_alice("PUT", target + "m.x", {"a": [1, "é"]})
        self.assertEqual((await self.as_alice("GET", target + "m.x")).json, {"a": [1, "é"]})
        for managed in ("m.push_rules", "m.fully_read"):
            answer = await self.as_alice("PUT", target + managed, {})
            self.assertEqual((answer.status, answer.errcode), (405, "M_BAD_JSON"))
        self.assertEqual((await self.as_alice("GET", target + "m.push_rules")).json, {"global": {}})
        for body, status in ((b"[]", 400), (b"", 400), (b"{", 400)):
            self.assertEqual((await self.as_alice("PUT", target + "m.x", body)).status, status)
        self.assertEqual(
            (await self.as_alice("PUT", f"{V3}/user/@bob:plait.test/account_data/m.x", {})).status, 403
        )
        self.assertEqual(
            (await self.as_alice("PUT", f"{V3}/user/{ID}/rooms/!no:room/account_data/m.x", {})).status, 404
        )

    async def test_clients_hear_of_it(self) -> None:
        """A change has an entry in the feed that leads to the data."""
        before = self.world.core.feed.position
        await self.as_alice("PUT", f"{V3}/user/{ID}/account_data/m.x", {"a": 1})
        (entry,) = self.world.core.feed.since(before) or ()
        (datum,) = await self.world.parts.keepsakes.data.changed(entry.user_nid, (entry.ref,))
        self.assertEqual((datum.type, datum.content), ("m.x", b'{"a":1}'))

    async def test_ignored_users_are_known(self) -> None:
        """From memory, and fresh after a change."""
        ignored, data = self.world.parts.keepsakes.ignored, f"{V3}/user/{ID}/account_data/"
        nid = await self.world.core.nids.user(ID)
        self.assertEqual(await ignored.of(nid), frozenset())
        users = {"@eve:x": {}, "nonsense": {}}
        await self.as_alice("PUT", data + "m.ignored_user_list", {"ignored_users": users})
        self.assertEqual(await ignored.of(nid), {"@eve:x"})
        self.assertEqual(
            (await self.as_alice("PUT", data + "m.ignored_user_list", {"ignored_users": []})).status, 400
        )

    async def test_filters_are_kept(self) -> None:
        """The same filter once; a wrong one is refused; others cannot see it."""
        target = f"{V3}/user/{ID}/filter"
        content = {"room": {"timeline": {"limit": 5}}}
        first = (await self.as_alice("POST", target, content)).json["filter_id"]
        self.assertEqual((await self.as_alice("POST", target, content)).json["filter_id"], first)
        self.assertEqual((await self.as_alice("GET", f"{target}/{first}")).json, content)
        for wrong in ("x", "999", "9" * 30, "-1"):
            self.assertEqual((await self.as_alice("GET", f"{target}/{wrong}")).status, 404)
        self.assertEqual((await self.as_alice("POST", target, {"room": 3})).status, 400)
        bob = (await self.register("bob"))["access_token"]
        self.assertEqual((await self.ask("GET", f"{target}/{first}", token=bob)).status, 403)


class ModerationTests(Alice):
    """What administrators do to accounts."""

    async def test_locking_and_suspending(self) -> None:
        """It holds at once, can be undone, and is for administrators alone (security: C8)."""
        root = await self.world.register("root", admin=True)
        token = (await self.world.login(root)).access_token
        lock, suspend = f"{V1}/admin/lock/{ID}", f"{V1}/admin/suspend/{ID}"
        self.assertEqual((await self.as_alice("PUT", lock, {"locked": True})).status, 403)
        await self.ask("PUT", lock, {"locked": True}, token=token)
        answer = await self.as_alice("GET", V3 + "/devices")
        self.assertEqual((answer.status, answer.errcode), (401, "M_USER_LOCKED"))
        self.assertEqual((await self.ask("GET", lock, token=token)).json, {"locked": True})
        await self.ask("PUT", lock, {"locked": False}, token=token)
        self.assertEqual((await self.as_alice("GET", V3 + "/devices")).status, 200)
        await self.ask("PUT", suspend, {"suspended": True}, token=token)
        name = {"displayname": "x"}
        answer = await self.as_alice("PUT", f"{V3}/profile/{ID}/displayname", name)
        self.assertEqual((answer.status, answer.errcode), (403, "M_USER_SUSPENDED"))
        own = await self.ask("PUT", f"{V1}/admin/lock/@root:plait.test", {"locked": True}, token=token)
        self.assertEqual(own.status, 403)
