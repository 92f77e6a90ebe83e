"""A user's push rules: their own ones, and what they changed of the default ones. Pure values.

Edits give new rules and check what clients send (security: D3); what was stored is read leniently, so that
rules of another age or origin never lock a user out.

Source: client-server-api/modules/push.md, "Push Rules"; data/api/client-server/pushrules.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from attrs import evolve, field, frozen

from protocol.canonical_json import JsonObject, dumps
from protocol.errors import BadJson, InvalidParam, MatrixError, MissingParam, NotFound
from protocol.identifiers import UserID
from protocol.limits import MAX_GLOB_LENGTH, MAX_ID_BYTES
from protocol.push_defaults import DEFAULT_RULES, MASTER, OWNER, Rule, RuleKind

MAX_RULES: Final = 2_000
"""Rules of a user's own; ours."""
MAX_CONDITIONS: Final = 500
"""Conditions and patterns of a user's own rules together: all may have to be asked for an event; ours."""
MAX_RULE_BYTES: Final = 4_096
"""One rule in JSON; ours."""
_HISTORICAL: Final = ("dont_notify", "coalesce")
_CONDITIONAL: Final = (RuleKind.OVERRIDE, RuleKind.UNDERRIDE)
_OF_ROOMS: Final = (RuleKind.ROOM, *_CONDITIONAL)


@frozen
class Change:
    """What a user made of a default rule; None: as it is by default."""

    enabled: bool | None = None
    actions: tuple[Any, ...] | None = None


def parse_kind(text: str) -> RuleKind:
    """Give the kind of that name; raises InvalidParam."""
    try:
        return RuleKind(text)
    except ValueError:
        raise InvalidParam(f"There is no kind of push rules called {text}") from None


def parse_actions(found: object) -> tuple[Any, ...]:
    """Give actions as a client sent them, without historical ones; raises BadJson or InvalidParam."""
    if not isinstance(found, list):
        raise BadJson("actions must be a list")
    actions = []
    for action in found:
        is_tweak = isinstance(action, dict) and isinstance(action.get("set_tweak"), str)
        if is_tweak or action == "notify":
            actions.append(action)
        elif action not in _HISTORICAL:
            raise InvalidParam("An action must be notify, or an object with set_tweak")
    _check_size(actions, "actions")
    return tuple(actions)


def parse_rule(kind: RuleKind, rule_id: str, body: JsonObject) -> Rule:
    """Give the rule that a client sent.

    Raises:
        BadJson: a field has a wrong type.
        MissingParam: one is missing.
        InvalidParam: the ID or a value is not allowed.
    """
    _check_id(rule_id)
    if "actions" not in body:
        raise MissingParam("A push rule needs actions")
    conditions, pattern = None, None
    if kind in _CONDITIONAL:
        conditions = _parse_conditions(body.get("conditions", []))
    elif kind is RuleKind.CONTENT:
        pattern = _parse_pattern(body)
    rule = Rule(rule_id, parse_actions(body["actions"]), conditions, pattern)
    _check_size(_rule_json(rule, UserID("")), "rule")
    return rule


def _check_id(rule_id: str) -> None:
    if rule_id.startswith("."):
        raise InvalidParam("IDs with a dot in front are those of default rules")
    if not rule_id or "/" in rule_id or "\\" in rule_id or "\0" in rule_id:
        raise InvalidParam("The ID of a push rule may not be empty, nor have slashes")
    if len(rule_id) > MAX_ID_BYTES or len(rule_id.encode()) > MAX_ID_BYTES:
        raise InvalidParam(f"The ID of a push rule may not be longer than {MAX_ID_BYTES} bytes")


def _check_size(value: object, what: str) -> None:
    if len(dumps(value)) > MAX_RULE_BYTES:
        raise InvalidParam(f"The {what} may not have more than {MAX_RULE_BYTES} bytes")


def _parse_conditions(found: object) -> tuple[JsonObject, ...]:
    if not isinstance(found, list):
        raise BadJson("conditions must be a list")
    for condition in found:
        if not isinstance(condition, dict) or not isinstance(condition.get("kind"), str):
            raise BadJson("A condition must be an object with a kind")
        pattern = condition.get("pattern")
        if isinstance(pattern, str) and len(pattern) > MAX_GLOB_LENGTH:
            raise InvalidParam(f"A pattern may not be longer than {MAX_GLOB_LENGTH} characters")
    return tuple(found)


def _parse_pattern(body: JsonObject) -> str:
    if "pattern" not in body:
        raise MissingParam("A content rule needs a pattern")
    pattern = body["pattern"]
    if not isinstance(pattern, str):
        raise BadJson("pattern must be a string")
    if len(pattern) > MAX_GLOB_LENGTH:
        raise InvalidParam(f"A pattern may not be longer than {MAX_GLOB_LENGTH} characters")
    return pattern


def _own_none() -> Mapping[RuleKind, tuple[Rule, ...]]:
    return dict.fromkeys(RuleKind, ())


@frozen
class PushRules:
    """All push rules of one user."""

    user_id: UserID
    own: Mapping[RuleKind, tuple[Rule, ...]] = field(factory=_own_none)
    """By kind, the more important first."""
    changes: Mapping[str, Change] = field(factory=dict)
    """By the ID of the default rule."""

    @property
    def are_default(self) -> bool:
        """Tell whether the user changed nothing."""
        return not self.changes and not any(self.own.values())

    @property
    def digest(self) -> bytes:
        """Give what is the same for users whose rules say the same, each of themselves."""
        own = {kind.value: [_rule_json(rule, self.user_id) for rule in self.own[kind]] for kind in RuleKind}
        changes = [[each, change.enabled, change.actions] for each, change in sorted(self.changes.items())]
        return sha256(dumps([own, changes])).digest()

    def of(self, kind: RuleKind) -> tuple[Rule, ...]:
        """Give all rules of a kind as they stand, the more important first."""
        first = (MASTER,) if kind is RuleKind.OVERRIDE else ()
        rules = (*first, *self.own[kind], *DEFAULT_RULES[kind])
        return tuple(self._changed(rule) if rule.default else rule for rule in rules)

    def _changed(self, rule: Rule) -> Rule:
        change = self.changes.get(rule.rule_id, Change())
        enabled = rule.enabled if change.enabled is None else change.enabled
        return evolve(
            rule, enabled=enabled, actions=rule.actions if change.actions is None else change.actions
        )

    def get(self, kind: RuleKind, rule_id: str) -> Rule:
        """Give one rule; raises NotFound."""
        for rule in self.of(kind):
            if rule.rule_id == rule_id:
                return rule
        raise NotFound("There is no such push rule")

    def rule_json(self, kind: RuleKind, rule_id: str) -> JsonObject:
        """Give one rule as clients see it; raises NotFound."""
        return _rule_json(self.get(kind, rule_id), self.user_id)

    def to_json(self) -> JsonObject:
        """Give the content of the account data `m.push_rules`."""
        rules = {kind.value: [_rule_json(rule, self.user_id) for rule in self.of(kind)] for kind in RuleKind}
        return {"global": rules}

    def put(
        self, kind: RuleKind, rule: Rule, *, before: str | None = None, after: str | None = None
    ) -> PushRules:
        """Add a rule of the user's own or replace the one of its ID, beside another one if so asked.

        A new rule comes first, one that was there keeps its place and stays off if it was.

        Raises:
            MatrixError: the rule it is to stand beside is none of the user's own.
            InvalidParam: there would be too many rules.
        """
        rules = list(self.own[kind])
        ids = [each.rule_id for each in rules]
        place = 0
        if rule.rule_id in ids:
            place = ids.index(rule.rule_id)
            rule = evolve(rule, enabled=rules.pop(place).enabled)
            ids.pop(place)
        beside = before if before is not None else after
        if beside is not None and beside != rule.rule_id:
            if beside not in ids:
                raise MatrixError(f"before/after rule not found: {beside}")
            place = ids.index(beside) + (before is None)
        rules.insert(place, rule)
        changed = evolve(self, own={**self.own, kind: tuple(rules)})
        changed._check_bounds()
        return changed

    def _check_bounds(self) -> None:
        rules = [rule for each in self.own.values() for rule in each]
        if len(rules) > MAX_RULES:
            raise InvalidParam(f"There may be no more than {MAX_RULES} push rules")
        if sum(_weight(rule) for rule in rules) > MAX_CONDITIONS:
            raise InvalidParam(f"Push rules may have no more than {MAX_CONDITIONS} conditions together")

    def delete(self, kind: RuleKind, rule_id: str) -> PushRules:
        """Take away a rule of the user's own; raises NotFound."""
        left = tuple(rule for rule in self.own[kind] if rule.rule_id != rule_id)
        if len(left) == len(self.own[kind]):
            raise NotFound("There is no push rule of yours with this ID")
        return evolve(self, own={**self.own, kind: left})

    def copied(self, old: str, new: str) -> PushRules:
        """Give rules that say of a room what they say of the one it replaces; raises InvalidParam.

        Such are the rules named after the room, as clients name them; one that is there stays as it is.
        """
        own = {**self.own, **{kind: _with_copy(self.own[kind], old, new) for kind in _OF_ROOMS}}
        changed = evolve(self, own=own)
        changed._check_bounds()
        return changed

    def set_enabled(self, kind: RuleKind, rule_id: str, enabled: bool) -> PushRules:
        """Switch any rule on or off; raises NotFound."""
        return self._replace(kind, evolve(self.get(kind, rule_id), enabled=enabled))

    def set_actions(self, kind: RuleKind, rule_id: str, actions: tuple[Any, ...]) -> PushRules:
        """Change what any rule does; raises NotFound."""
        return self._replace(kind, evolve(self.get(kind, rule_id), actions=actions))

    def _replace(self, kind: RuleKind, rule: Rule) -> PushRules:
        if rule.default:
            return evolve(self, changes=_changes_with(self.changes, kind, rule))
        own = tuple(rule if each.rule_id == rule.rule_id else each for each in self.own[kind])
        return evolve(self, own={**self.own, kind: own})


def _with_copy(rules: tuple[Rule, ...], old: str, new: str) -> tuple[Rule, ...]:
    """Give rules with a copy, under the ID `new`, of that with the ID `old`."""
    found = {rule.rule_id: rule for rule in rules}
    if old not in found or new in found:
        return rules
    conditions = found[old].conditions
    if conditions is not None:
        conditions = tuple(
            {key: new if value == old else value for key, value in each.items()} for each in conditions
        )
    return (evolve(found[old], rule_id=new, conditions=conditions), *rules)


def _changes_with(changes: Mapping[str, Change], kind: RuleKind, rule: Rule) -> dict[str, Change]:
    """Note what is not by default in a default rule, if anything."""
    known = {each.rule_id: each for each in (MASTER, *DEFAULT_RULES[kind])}[rule.rule_id]
    change = Change(
        None if rule.enabled == known.enabled else rule.enabled,
        None if rule.actions == known.actions else rule.actions,
    )
    others = {rule_id: each for rule_id, each in changes.items() if rule_id != rule.rule_id}
    return others if change == Change() else {**others, rule.rule_id: change}


def _rule_json(rule: Rule, owner: UserID) -> JsonObject:
    found: JsonObject = {
        "rule_id": rule.rule_id,
        "default": rule.default,
        "enabled": rule.enabled,
        "actions": list(rule.actions),
    }
    if rule.conditions is not None:
        found["conditions"] = [_with_owner(each, owner) for each in rule.conditions]
    if rule.pattern is not None:
        found["pattern"] = rule.pattern
    return found


def _with_owner(condition: JsonObject, owner: UserID) -> JsonObject:
    return {key: owner if value == OWNER else value for key, value in condition.items()}


def read_push_rules(user_id: UserID, content: object) -> PushRules:
    """Read rules from account data `m.push_rules`; what makes no sense or is too much is left out."""
    ruleset = content.get("global") if isinstance(content, dict) else None
    own: dict[RuleKind, tuple[Rule, ...]] = {}
    changes: dict[str, Change] = {}
    rules_left, conditions_left = MAX_RULES, MAX_CONDITIONS
    for kind in RuleKind:
        kept = []
        for rule in _read_rules(kind, ruleset.get(kind.value) if isinstance(ruleset, dict) else None):
            rules_left -= not rule.default
            conditions_left -= 0 if rule.default else _weight(rule)
            if rule.default:
                changes = _changes_with(changes, kind, rule)
            elif rules_left >= 0 and conditions_left >= 0:
                kept.append(rule)
        own[kind] = tuple(kept)
    return PushRules(user_id, own, changes)


def _weight(rule: Rule) -> int:
    """Count the conditions that a rule makes us look at."""
    return len(rule.conditions or ()) + (rule.pattern is not None)


def _read_rules(kind: RuleKind, found: object) -> Iterator[Rule]:
    """Give the rules of a kind that make sense, each once."""
    known = {rule.rule_id: rule for rule in PushRules(UserID("")).of(kind)}
    seen = set()
    for body in found if isinstance(found, list) else []:
        rule_id = body.get("rule_id") if isinstance(body, dict) else None
        if not isinstance(rule_id, str) or rule_id in seen:
            continue
        try:
            if rule_id in known:
                rule = evolve(known[rule_id], actions=parse_actions(body.get("actions")))
            else:
                rule = parse_rule(kind, rule_id, body)
        except MatrixError:
            continue
        seen.add(rule_id)
        yield evolve(rule, enabled=body.get("enabled") is not False)
