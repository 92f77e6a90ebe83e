"""Tests of push rules over HTTP."""

from __future__ import annotations

from typing import Any

from client_api.push_rules import PushRuleRoutes
from homeserver.accounts.push_rules import UserPushRules
from homeserver.http.routing import RouteTable
from tests.client_api.helpers import V3, AccountsCase, account_routes

RULES = V3 + "/pushrules/global/"
NOTIFY = {"actions": ["notify"]}


class PushRuleTests(AccountsCase):
    """Showing and editing."""

    async def setUp(self) -> None:
        """Add the family, and register somebody."""
        await super().setUp()
        family = PushRuleRoutes(UserPushRules(self.world.parts.keepsakes.data))
        self.server.dispatcher._table = RouteTable([*account_routes(self.world), *family.routes()])
        self.token = (await self.register("alice"))["access_token"]

    async def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """Make a request under the global ruleset, and give its JSON."""
        answer = await self.ask(method, RULES + path, body, token=self.token)
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    async def test_the_default_rules_are_there(self) -> None:
        """With and without the slash, whole and one by one."""
        whole = (await self.ask("GET", V3 + "/pushrules/", token=self.token)).json
        self.assertEqual(whole, (await self.ask("GET", V3 + "/pushrules", token=self.token)).json)
        self.assertEqual(whole["global"], await self.call("GET", ""))
        self.assertEqual(whole["global"]["override"][0]["rule_id"], ".m.rule.master")
        message = await self.call("GET", "underride/.m.rule.message")
        self.assertEqual((message["actions"], message["default"]), (["notify"], True))

    async def test_own_rules_can_be_made_moved_and_removed(self) -> None:
        """A new one comes first; before and after place it; clients hear of each change."""
        before = self.world.core.feed.position
        for name in ("b", "a"):
            await self.call("PUT", f"content/{name}", {**NOTIFY, "pattern": "cake"})
        await self.call("PUT", "content/c?after=b", {**NOTIFY, "pattern": "lie"})
        rules = (await self.call("GET", ""))["content"]
        self.assertEqual([rule["rule_id"] for rule in rules], ["a", "b", "c"])
        self.assertEqual(self.world.core.feed.position, before + 3)
        await self.call("DELETE", "content/b")
        await self.call("GET", "content/b", status=404)
        await self.call("PUT", "room/%21r%3Ax", {"actions": []})
        self.assertEqual((await self.call("GET", "room/%21r%3Ax"))["rule_id"], "!r:x")

    async def test_any_rule_can_be_switched_and_changed(self) -> None:
        """Default ones too; what did not change makes no entry."""
        await self.call("PUT", "override/.m.rule.master/enabled", {"enabled": True})
        self.assertEqual(await self.call("GET", "override/.m.rule.master/enabled"), {"enabled": True})
        before = self.world.core.feed.position
        await self.call("PUT", "override/.m.rule.master/enabled", {"enabled": True})
        self.assertEqual(self.world.core.feed.position, before)
        await self.call("PUT", "underride/.m.rule.message/actions", {"actions": []})
        self.assertEqual(await self.call("GET", "underride/.m.rule.message/actions"), {"actions": []})
        shown = await self.ask(
            "GET", V3 + "/user/@alice:plait.test/account_data/m.push_rules", token=self.token
        )
        self.assertEqual(shown.json["global"], await self.call("GET", ""))

    async def test_bad_rules_are_refused(self) -> None:
        """Wrong kinds, IDs, types and places are a 400 or 404 (security: D3)."""
        for path, body, status in (
            ("nonsense/x", NOTIFY, 400),
            ("override/.mine", NOTIFY, 400),
            ("override/a%2Fb", NOTIFY, 400),
            ("override/x", {}, 400),
            ("override/x", {"actions": "notify"}, 400),
            ("override/x", {"actions": ["explode"]}, 400),
            ("override/x", {**NOTIFY, "conditions": {}}, 400),
            ("content/x", NOTIFY, 400),
            ("content/x", {**NOTIFY, "pattern": 3}, 400),
            ("content/x", {**NOTIFY, "pattern": "x" * 2000}, 400),
            ("override/x?before=none", NOTIFY, 400),
            ("override/none/enabled", {"enabled": True}, 404),
            ("override/.m.rule.master/enabled", {"enabled": "yes"}, 400),
            ("override/.m.rule.master/actions", {"actions": {}}, 400),
        ):
            await self.call("PUT", path, body, status)
        await self.call("DELETE", "override/.m.rule.master", status=404)
