"""Judge events by push rules, which are compiled once. Pure.

Users whose rules say the same may share an evaluator: what differs between them is among the facts.

Source: client-server-api/modules/push.md, "Push Rules".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final

from attrs import frozen

from protocol.identifiers import UserID
from protocol.push_conditions import (
    Condition,
    PushFacts,
    compile_condition,
    compile_pattern,
    type_wanted,
)
from protocol.push_defaults import Rule, RuleKind
from protocol.push_rules import PushRules
from protocol.unread import Judged, Verdict

Actions = tuple[Any, ...]


@frozen(eq=False)
class _Compiled:
    """A rule that is on, ready to be asked; one without conditions always matches."""

    rule_id: str
    event_type: str | None
    """The only type of events that may match, in lower case; None: any."""
    conditions: Sequence[Condition]
    actions: Actions
    verdict: Verdict

    def matches(self, event: Judged, facts: PushFacts) -> bool:
        for condition in self.conditions:  # noqa: SIM110, since `all` takes twice as long here
            if not condition(event, facts):
                return False
        return True


_Find = Callable[[Judged, PushFacts], _Compiled | None]
_NO_VERDICT: Final = Verdict()


class Evaluator:
    """Push rules of a user, or of several who have the same.

    Whoever asks has seen to it that the event is accepted, that the reader may see it and did not send it,
    and that they do not ignore its sender (security: P6).
    """

    __slots__ = ("_steps", "key", "needs_display_name")

    def __init__(self, rules: PushRules) -> None:
        """Compile rules; those that are off, or could never match, are left out."""
        kinds = {kind: [rule for rule in rules.of(kind) if rule.enabled] for kind in RuleKind}
        conditions = [each for found in kinds.values() for rule in found for each in rule.conditions or ()]
        self.needs_display_name = any(each.get("kind") == "contains_display_name" for each in conditions)
        """Whether some rule asks for the reader's display name."""
        self.key: Hashable = (rules.digest, rules.user_id if self.needs_display_name else None)
        """What is the same for users who may share a verdict on an event that mentions none of them."""
        self._steps: tuple[_Find, ...] = (
            _in_order(kinds[RuleKind.OVERRIDE]),
            _in_order(kinds[RuleKind.CONTENT]),
            _by_id(kinds[RuleKind.ROOM], lambda facts: facts.room_id),
            _by_id(kinds[RuleKind.SENDER], lambda facts: facts.sender),
            _in_order(kinds[RuleKind.UNDERRIDE]),
        )

    def _find(self, event: Judged, facts: PushFacts) -> _Compiled | None:
        for step in self._steps:
            found = step(event, facts)
            if found is not None:
                return found
        return None

    def verdict(self, event: Judged, facts: PushFacts) -> Verdict:
        """Tell whether an event notifies the reader, and whether it is highlighted."""
        found = self._find(event, facts)
        return _NO_VERDICT if found is None else found.verdict

    def actions(self, event: Judged, facts: PushFacts) -> Actions:
        """Give the actions of the most important rule that matches an event, none if there is no such."""
        found = self._find(event, facts)
        return () if found is None else found.actions


def tweaks_of(actions: Actions) -> dict[str, Any]:
    """Give the tweaks that actions set, as a push gateway is told them.

    Source: client-server-api/modules/push.md, "Actions".
    """
    return {
        action["set_tweak"]: action.get("value", True)
        for action in actions
        if isinstance(action, dict) and "set_tweak" in action
    }


def _verdict_of(actions: Actions) -> Verdict:
    notify = "notify" in actions
    return Verdict(notify, notify and tweaks_of(actions).get("highlight", False) is not False)


def _compile(rule: Rule) -> _Compiled | None:
    """Compile a rule; None if one of its conditions can never hold."""
    event_type: str | None = None
    conditions: list[Condition | None] = []
    for each in rule.conditions or ():
        wanted = type_wanted(each)
        if wanted is not None and event_type in (None, wanted):
            event_type = wanted
        else:
            conditions.append(compile_condition(each))
    if rule.pattern is not None:
        conditions.append(compile_pattern("content.body", rule.pattern))
    usable = [each for each in conditions if each is not None]
    if len(usable) < len(conditions):
        return None
    return _Compiled(rule.rule_id, event_type, usable, rule.actions, _verdict_of(rule.actions))


def _compiled(rules: Iterable[Rule]) -> tuple[_Compiled, ...]:
    return tuple(found for found in map(_compile, rules) if found is not None)


def _in_order(rules: Iterable[Rule]) -> _Find:
    """Make a step that asks rules one after the other: those that are for events of the type."""
    compiled = _compiled(rules)
    types = {rule.event_type for rule in compiled}
    by_type = {each: tuple(rule for rule in compiled if rule.event_type in (None, each)) for each in types}
    others = by_type.get(None, ())

    def find(event: Judged, facts: PushFacts) -> _Compiled | None:
        for rule in by_type.get(event.type.lower(), others):
            if rule.matches(event, facts):
                return rule
        return None

    return find


def _by_id(rules: Iterable[Rule], subject: Callable[[PushFacts], str]) -> _Find:
    """Make a step that finds the rule of a room or sender, however many there are."""
    compiled = {rule.rule_id: rule for rule in _compiled(rules)}
    return lambda _event, facts: compiled.get(subject(facts))


DEFAULT_EVALUATOR: Final = Evaluator(PushRules(UserID("")))
"""For all who changed nothing."""
