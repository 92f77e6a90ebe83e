"""Push rules: which events a user wants to be told of.

Source: client-server-api/modules/push.md; data/api/client-server/pushrules.yaml.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.paths import v3
from homeserver.accounts.push_rules import UserPushRules
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import RateClass, Route
from protocol.canonical_json import JsonObject
from protocol.push_defaults import RuleKind
from protocol.push_rules import PushRules, parse_actions, parse_kind, parse_rule


class EnabledBody(msgspec.Struct, frozen=True):
    """Whether a rule is on."""

    enabled: bool


class ActionsBody(msgspec.Struct, frozen=True):
    """What a rule does."""

    actions: list[Any]


@frozen(eq=False)
class PushRuleRoutes:
    """Shows and edits push rules."""

    rules: UserPushRules

    async def all(self, call: Call[None]) -> Reply:
        """GET /pushrules/."""
        return (await self._rules(call)).to_json()

    async def all_global(self, call: Call[None]) -> Reply:
        """GET /pushrules/global/."""
        ruleset: JsonObject = (await self._rules(call)).to_json()["global"]
        return ruleset

    async def get(self, call: Call[None]) -> Reply:
        """GET /pushrules/global/{kind}/{ruleId}."""
        return (await self._rules(call)).rule_json(*_named(call))

    async def put(self, call: Call[JsonObject]) -> Reply:
        """PUT /pushrules/global/{kind}/{ruleId}."""
        kind, rule_id = _named(call)
        rule = parse_rule(kind, rule_id, call.body)
        before, after = call.query.get("before"), call.query.get("after")
        return await self._edit(call, lambda rules: rules.put(kind, rule, before=before, after=after))

    async def delete(self, call: Call[bytes]) -> Reply:
        """DELETE /pushrules/global/{kind}/{ruleId}."""
        kind, rule_id = _named(call)
        return await self._edit(call, lambda rules: rules.delete(kind, rule_id))

    async def is_enabled(self, call: Call[None]) -> Reply:
        """GET /pushrules/global/{kind}/{ruleId}/enabled."""
        return {"enabled": (await self._rules(call)).get(*_named(call)).enabled}

    async def set_enabled(self, call: Call[EnabledBody]) -> Reply:
        """PUT /pushrules/global/{kind}/{ruleId}/enabled."""
        kind, rule_id = _named(call)
        return await self._edit(call, lambda rules: rules.set_enabled(kind, rule_id, call.body.enabled))

    async def actions(self, call: Call[None]) -> Reply:
        """GET /pushrules/global/{kind}/{ruleId}/actions."""
        return {"actions": list((await self._rules(call)).get(*_named(call)).actions)}

    async def set_actions(self, call: Call[ActionsBody]) -> Reply:
        """PUT /pushrules/global/{kind}/{ruleId}/actions."""
        kind, rule_id = _named(call)
        actions = parse_actions(call.body.actions)
        return await self._edit(call, lambda rules: rules.set_actions(kind, rule_id, actions))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        one = "/pushrules/global/{kind}/{ruleId}"
        writes: dict[str, Any] = {"limit": RateClass.WRITES, "while_suspended": True}
        return (
            Route("GET", v3("/pushrules/", "/pushrules"), self.all),
            Route("GET", v3("/pushrules/global/", "/pushrules/global"), self.all_global),
            Route("GET", v3(one), self.get),
            Route("PUT", v3(one), self.put, body=dict, **writes),
            Route("DELETE", v3(one), self.delete, body=bytes, **writes),
            Route("GET", v3(one + "/enabled"), self.is_enabled),
            Route("PUT", v3(one + "/enabled"), self.set_enabled, body=EnabledBody, **writes),
            Route("GET", v3(one + "/actions"), self.actions),
            Route("PUT", v3(one + "/actions"), self.set_actions, body=ActionsBody, **writes),
        )

    async def _rules(self, call: Call[Any]) -> PushRules:
        return await self.rules.get(call.requester.user_id, call.requester.user_nid)

    async def _edit(self, call: Call[Any], change: Any) -> Reply:
        await self.rules.edit(call.requester.user_id, call.requester.user_nid, change)
        return EMPTY


def _named(call: Call[Any]) -> tuple[RuleKind, str]:
    """Give the kind and the ID that the path names; raises InvalidParam."""
    return parse_kind(call.path["kind"]), call.path["ruleId"]
