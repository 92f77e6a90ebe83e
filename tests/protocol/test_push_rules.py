"""Tests of push rules as values: the default ones, edits, and what comes from elsewhere."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import BadJson, InvalidParam, MatrixError, MissingParam, NotFound
from protocol.push_defaults import OWNER, RuleKind
from protocol.push_rules import (
    MAX_CONDITIONS,
    MAX_RULES,
    PushRules,
    parse_actions,
    parse_kind,
    parse_rule,
    read_push_rules,
)
from tests.protocol.helpers import ALICE, BOB

ROOM, CONTENT, OVERRIDE = RuleKind.ROOM, RuleKind.CONTENT, RuleKind.OVERRIDE
DEFAULTS = PushRules(ALICE)


def rule(kind: RuleKind, rule_id: str, **body: Any) -> Any:
    """Parse a rule; actions and a pattern are supplied."""
    return parse_rule(kind, rule_id, {"actions": ["notify"], "pattern": "x", **body})


def ids(rules: PushRules, kind: RuleKind) -> list[str]:
    """Give the IDs of the user's own rules."""
    return [each.rule_id for each in rules.own[kind]]


class DefaultsTest(SynchronousTestCase):
    """The rules of somebody who changed nothing."""

    def test_order(self) -> None:
        """The master rule comes before a user's own rules, all other default rules after them."""
        rules = DEFAULTS.put(OVERRIDE, rule(OVERRIDE, "mine"))
        found = [each["rule_id"] for each in rules.to_json()["global"]["override"]]
        self.assertEqual(found[:3], [".m.rule.master", "mine", ".m.rule.suppress_notices"])
        self.assertEqual(len(found), 11)

    def test_owner_is_filled_in(self) -> None:
        """Clients see their user ID in the rules on mentions and invites, and nothing that stands for it."""
        text = json.dumps(DEFAULTS.to_json())
        self.assertEqual(text.count(ALICE), 2)
        self.assertNotIn(json.dumps(OWNER)[1:-1], text)

    def test_master_is_off(self) -> None:
        """Of the default rules all are on but the master rule."""
        off = [each.rule_id for kind in RuleKind for each in DEFAULTS.of(kind) if not each.enabled]
        self.assertEqual(off, [".m.rule.master"])


class EditTest(SynchronousTestCase):
    """What users do to their rules."""

    def test_new_rules_come_first(self) -> None:
        """A new rule is more important than the older ones of its kind."""
        rules = DEFAULTS.put(ROOM, rule(ROOM, "!a:x")).put(ROOM, rule(ROOM, "!b:x"))
        self.assertEqual(ids(rules, ROOM), ["!b:x", "!a:x"])

    def test_before_and_after(self) -> None:
        """A rule goes right before or after the one named; `before` counts if both are."""
        rules = DEFAULTS
        for name in "cba":
            rules = rules.put(CONTENT, rule(CONTENT, name))
        self.assertEqual(ids(rules.put(CONTENT, rule(CONTENT, "n"), before="b"), CONTENT), list("anbc"))
        self.assertEqual(ids(rules.put(CONTENT, rule(CONTENT, "n"), after="b"), CONTENT), list("abnc"))
        both = rules.put(CONTENT, rule(CONTENT, "n"), before="c", after="a")
        self.assertEqual(ids(both, CONTENT), list("abnc"))
        self.assertEqual(ids(rules.put(CONTENT, rule(CONTENT, "a"), after="c"), CONTENT), list("bca"))
        self.assertEqual(ids(rules.put(CONTENT, rule(CONTENT, "b"), before="b"), CONTENT), list("abc"))

    def test_beside_a_stranger(self) -> None:
        """A rule cannot stand beside one that is not there, nor beside a default rule (security: D3)."""
        for name in ("missing", ".m.rule.master"):
            with self.assertRaises(MatrixError) as caught:
                DEFAULTS.put(OVERRIDE, rule(OVERRIDE, "n"), after=name)
            self.assertEqual((caught.exception.status, caught.exception.errcode), (400, "M_UNKNOWN"))

    def test_replace(self) -> None:
        """A rule put again keeps its place, and stays off."""
        rules = DEFAULTS.put(CONTENT, rule(CONTENT, "a")).put(CONTENT, rule(CONTENT, "b"))
        rules = rules.set_enabled(CONTENT, "a", False).put(CONTENT, rule(CONTENT, "a", pattern="new"))
        self.assertEqual(ids(rules, CONTENT), ["b", "a"])
        self.assertEqual((rules.get(CONTENT, "a").pattern, rules.get(CONTENT, "a").enabled), ("new", False))

    def test_delete(self) -> None:
        """A user's own rule can be deleted, a default one or a missing one cannot."""
        rules = DEFAULTS.put(ROOM, rule(ROOM, "!a:x"))
        self.assertEqual(rules.delete(ROOM, "!a:x"), DEFAULTS)
        for kind, name in ((ROOM, "!b:x"), (OVERRIDE, ".m.rule.master"), (CONTENT, "!a:x")):
            self.assertRaises(NotFound, rules.delete, kind, name)

    def test_change_default(self) -> None:
        """Default rules can be switched and given other actions, and are default again when put back."""
        name = ".m.rule.message"
        off = DEFAULTS.set_enabled(RuleKind.UNDERRIDE, name, False)
        self.assertFalse(off.get(RuleKind.UNDERRIDE, name).enabled)
        self.assertFalse(off.are_default)
        quiet = off.set_actions(RuleKind.UNDERRIDE, name, ())
        self.assertEqual(quiet.get(RuleKind.UNDERRIDE, name).actions, ())
        self.assertFalse(quiet.get(RuleKind.UNDERRIDE, name).enabled)
        back = off.set_enabled(RuleKind.UNDERRIDE, name, True)
        self.assertTrue(back.are_default)

    def test_missing_rule(self) -> None:
        """What is not there can neither be read, nor switched, nor given actions."""
        self.assertRaises(NotFound, DEFAULTS.rule_json, ROOM, "!a:x")
        self.assertRaises(NotFound, DEFAULTS.set_enabled, ROOM, "!a:x", True)
        self.assertRaises(NotFound, DEFAULTS.set_actions, ROOM, "!a:x", ())

    def test_bad_bodies(self) -> None:
        """Rules that make no sense are refused, each with its errcode."""
        cases: list[tuple[type[MatrixError], RuleKind, str, dict[str, Any]]] = [
            (MissingParam, ROOM, "!a:x", {}),
            (MissingParam, CONTENT, "a", {"actions": []}),
            (BadJson, CONTENT, "a", {"actions": [], "pattern": 5}),
            (InvalidParam, CONTENT, "a", {"actions": [], "pattern": "x" * 513}),
            (BadJson, OVERRIDE, "a", {"actions": [], "conditions": [{"key": "type"}]}),
            (BadJson, OVERRIDE, "a", {"actions": [], "conditions": 1}),
            (BadJson, OVERRIDE, "a", {"actions": 1}),
            (InvalidParam, OVERRIDE, "a", {"actions": ["shout"]}),
            (InvalidParam, OVERRIDE, "a", {"actions": [{"tweak": 1}]}),
            (InvalidParam, OVERRIDE, ".m.rule.mine", {"actions": []}),
            (InvalidParam, OVERRIDE, "a/b", {"actions": []}),
            (InvalidParam, OVERRIDE, "a\\b", {"actions": []}),
            (InvalidParam, OVERRIDE, "a" * 256, {"actions": []}),
        ]
        for error, kind, name, body in cases:
            self.assertRaises(error, parse_rule, kind, name, body)
        self.assertRaises(InvalidParam, parse_kind, "postcontent")

    def test_historical_actions(self) -> None:
        """The actions of old are dropped."""
        self.assertEqual(parse_actions(["dont_notify", "notify", "coalesce"]), ("notify",))

    def test_bounds(self) -> None:
        """One rule or one condition too many is refused (security: D3)."""
        full = PushRules(ALICE, {**DEFAULTS.own, ROOM: (rule(ROOM, "!a:x"),) * MAX_RULES})
        self.assertRaises(InvalidParam, full.put, ROOM, rule(ROOM, "!b:x"))
        many = PushRules(ALICE, {**DEFAULTS.own, CONTENT: (rule(CONTENT, "a"),) * MAX_CONDITIONS})
        self.assertRaises(InvalidParam, many.put, CONTENT, rule(CONTENT, "b"))
        fat = {"actions": [], "conditions": [{"kind": "event_match", "key": "x" * 5000}]}
        self.assertRaises(InvalidParam, parse_rule, OVERRIDE, "a", fat)


class StoredTest(SynchronousTestCase):
    """Rules as account data."""

    def test_round_trip(self) -> None:
        """Rules survive being written and read."""
        rules = DEFAULTS.put(CONTENT, rule(CONTENT, "b")).put(CONTENT, rule(CONTENT, "a"))
        rules = rules.set_enabled(CONTENT, "b", False).set_enabled(OVERRIDE, ".m.rule.master", True)
        rules = rules.set_actions(RuleKind.UNDERRIDE, ".m.rule.call", ("notify",))
        self.assertEqual(read_push_rules(ALICE, json.loads(json.dumps(rules.to_json()))), rules)

    def test_nonsense(self) -> None:
        """What makes no sense is left out and the rest is kept."""
        good = rule(ROOM, "!a:x")
        content = {
            "global": {
                "room": [5, {"rule_id": 5}, {"rule_id": "x"}, {"rule_id": "!a:x", "actions": ["notify"]}]
            }
        }
        self.assertEqual(read_push_rules(ALICE, content), DEFAULTS.put(ROOM, good))
        for nonsense in (None, 5, {}, {"global": []}, {"global": {"room": {}}}):
            self.assertTrue(read_push_rules(ALICE, nonsense).are_default)

    def test_too_many_stored(self) -> None:
        """More rules than may be are not read (security: D3)."""
        rules = [{"rule_id": f"!{number}:x", "actions": []} for number in range(MAX_RULES + 5)]
        self.assertEqual(len(read_push_rules(ALICE, {"global": {"room": rules}}).own[ROOM]), MAX_RULES)

    def test_digest(self) -> None:
        """Users with the same rules of themselves have one digest, others do not."""
        other = PushRules(BOB)
        self.assertEqual(DEFAULTS.digest, other.digest)
        changed = other.set_enabled(OVERRIDE, ".m.rule.master", True)
        self.assertNotEqual(DEFAULTS.digest, changed.digest)
        self.assertNotEqual(DEFAULTS.digest, other.put(ROOM, rule(ROOM, "!a:x")).digest)

    @settings(max_examples=100, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.text() | st.integers(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["global", "room", "override", "rule_id", "actions"]), inner
                )
            ),
        )
    )
    def test_never_raises(self, content: object) -> None:
        """No account data can keep a user from their rules (security: D3)."""
        read_push_rules(ALICE, content).to_json()


class CopyTest(SynchronousTestCase):
    """The rules of a room for the one that replaces it."""

    def test_copied(self) -> None:
        """Rules named after the room are copied with what they say of it, unless there are such already."""
        old, new = "!old:x", "!new:x"
        of_room = {"kind": "event_match", "key": "room_id", "pattern": old}
        mute = rule(OVERRIDE, old, actions=[], conditions=[of_room])
        rules = DEFAULTS.put(OVERRIDE, mute).put(ROOM, rule(ROOM, old)).put(CONTENT, rule(CONTENT, "tea"))
        rules = rules.set_enabled(ROOM, old, False)
        copied = rules.copied(old, new)
        self.assertEqual(copied.get(OVERRIDE, new).conditions, ({**of_room, "pattern": new},))
        self.assertFalse(copied.get(ROOM, new).enabled)
        own = [ids(copied, kind) for kind in (OVERRIDE, ROOM, CONTENT)]
        self.assertEqual(own, [[new, old], [new, old], ["tea"]])
        self.assertEqual(copied.copied(old, new), copied)
        self.assertEqual(rules.copied("!other:x", new), rules)

    def test_too_many(self) -> None:
        """Rules that would be too many are not copied."""
        full = DEFAULTS.put(OVERRIDE, rule(OVERRIDE, "!old:x", conditions=[{"kind": "x"}]))
        for number in range(MAX_CONDITIONS - 1):
            full = full.put(CONTENT, rule(CONTENT, str(number)))
        with self.assertRaises(InvalidParam):
            full.copied("!old:x", "!new:x")
