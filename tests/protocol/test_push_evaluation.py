"""Tests of the evaluation of push rules: each condition, the order of rules, and the classes made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.identifiers import RoomID, UserID
from protocol.push_conditions import MAX_SEARCHED, compile_condition, split_path
from protocol.push_defaults import RuleKind
from protocol.push_evaluation import DEFAULT_EVALUATOR, Evaluator, tweaks_of
from protocol.push_rules import PushRules, parse_rule
from protocol.unread import BY_DEFAULT, HIGHLIGHT, NOTIFY, SILENT, Verdict, classify
from tests.protocol.helpers import ALICE, BOB

ROOM = RoomID("!room:alpha.example")
TYPES = (
    *("m.room.message", "m.room.encrypted", "m.call.invite", "m.room.tombstone", "m.reaction"),
    *("m.room.member", "m.room.server_acl", "m.room.name", "m.sticker"),
)


@frozen
class Told:
    """An event as far as rules look at it."""

    type: str = "m.room.message"
    content: Mapping[str, Any] = {}
    state_key: str | None = None


@frozen
class Facts:
    """What is known beside the event: by default Bob wrote to Alice in a room of three."""

    room_id: RoomID = ROOM
    sender: UserID = BOB
    reader: UserID = ALICE
    members: int = 3
    may_notify_room: bool = False
    display_name: str | None = None


FACTS = Facts()


def said(body: object, **content: Any) -> Told:
    """Make a message."""
    return Told(content={"msgtype": "m.text", "body": body, **content})


def holds(condition: dict[str, Any], event: Told, facts: Facts = FACTS) -> bool:
    """Ask one condition."""
    compiled = compile_condition(condition)
    return compiled is not None and compiled(event, facts)


def with_rule(kind: RuleKind, rule_id: str, **body: Any) -> PushRules:
    """Give Alice's rules with one of her own; it notifies unless `actions` say otherwise."""
    return PushRules(ALICE).put(kind, parse_rule(kind, rule_id, {"actions": ["notify"], **body}))


class ConditionTest(SynchronousTestCase):
    """Each kind of condition."""

    def match(self, key: str, pattern: str, event: Told) -> bool:
        """Ask an event_match."""
        return holds({"kind": "event_match", "key": key, "pattern": pattern}, event)

    def test_event_match_specification(self) -> None:
        """The examples of the specification match or do not, as it says."""
        for topic, wanted in (("Lunch plans", 1), ("LUNCH", 1), (" lunch", 0), ("lunc", 0), (None, 0)):
            event = Told("m.room.topic", {"topic": topic}, "")
            self.assertEqual(self.match("content.topic", "lunc?*", event), bool(wanted), topic)
        for body in ("An example event.", "exple", "An exciting triple-whammy"):
            self.assertTrue(self.match("content.body", "ex*ple", said(body)), body)
        self.assertFalse(self.match("content.body", "ex*ple", said("hexample")))

    def test_event_match_top_level(self) -> None:
        """Type, sender, room and state key can be matched; what is absent matches no star."""
        event = Told("m.room.name", {}, "")
        self.assertTrue(self.match("type", "m.room.*", event))
        self.assertTrue(self.match("sender", BOB, event))
        self.assertTrue(self.match("room_id", "!room:*", event))
        self.assertTrue(self.match("state_key", "", event))
        self.assertFalse(self.match("state_key", "*", said("x")))
        self.assertFalse(self.match("content.missing", "*", event))
        self.assertFalse(self.match("unsigned.age", "*", event))

    def test_paths(self) -> None:
        """Dots and backslashes in names are escaped by a backslash, other escapes stand for themselves."""
        self.assertEqual(split_path(r"content.m\.relates_to.rel"), ("content", "m.relates_to", "rel"))
        self.assertEqual(split_path(r"content.m\\foo"), ("content", "m\\foo"))
        self.assertEqual(split_path(r"a\x.b"), (r"a\x", "b"))
        self.assertEqual(split_path(r"a\\.b"), ("a\\", "b"))
        self.assertEqual(split_path(""), ("",))

    def test_property_is(self) -> None:
        """Simple values are compared with their types; true is not 1, and null is a value."""
        condition = {"kind": "event_property_is", "key": r"content.m\.federate", "value": True}
        for value, wanted in ((True, True), ("true", False), (1, False), ([True], False)):
            self.assertEqual(holds(condition, Told(content={"m.federate": value})), wanted, value)
        null = {**condition, "value": None}
        self.assertTrue(holds(null, Told(content={"m.federate": None})))
        self.assertFalse(holds(null, Told(content={})))

    def test_property_contains(self) -> None:
        """A list must hold the very value."""
        condition = {"kind": "event_property_contains", "key": "content.list", "value": 1}
        for value, wanted in (([0, 1], True), ([True, "1", [1]], False), (1, False), ({"1": 1}, False)):
            self.assertEqual(holds(condition, Told(content={"list": value})), wanted, value)

    def test_member_count(self) -> None:
        """All comparisons work; what is no comparison never holds."""
        cases = {"3": 1, "==3": 1, "<3": 0, "<=3": 1, ">3": 0, ">=3": 1, ">2": 1, "2": 0, "!3": 0, "": 0}
        for text, wanted in cases.items():
            condition = {"kind": "room_member_count", "is": text}
            self.assertEqual(holds(condition, said("x")), bool(wanted), text)

    def test_display_name(self) -> None:
        """The name must stand in the body as words of its own; its stars are but stars."""
        condition = {"kind": "contains_display_name"}
        facts = evolve(FACTS, display_name="Al*ce")
        for body, wanted in (("hi al*ce!", True), ("Alice", False), ("xAl*ce", False), (5, False)):
            self.assertEqual(holds(condition, said(body), facts), wanted, body)
        self.assertFalse(holds(condition, said("hi")))

    def test_permission(self) -> None:
        """The sender's power decides on mentions of the room, and on nothing else."""
        may = evolve(FACTS, may_notify_room=True)
        condition = {"kind": "sender_notification_permission", "key": "room"}
        self.assertEqual((holds(condition, said("x")), holds(condition, said("x"), may)), (False, True))
        self.assertFalse(holds({**condition, "key": "world"}, said("x"), may))

    def test_unknown(self) -> None:
        """An unknown or malformed condition never holds, and so its rule never matches."""
        conditions: list[dict[str, Any]] = [
            {"kind": "device"},
            {"kind": ["event_match"]},
            {"kind": "event_match", "key": "type"},
            {"kind": "event_match", "key": 5, "pattern": "*"},
            {"kind": "event_match", "key": "type", "pattern": "*" * 600},
            {"kind": "event_property_is", "key": "type", "value": {}},
            {"kind": "event_property_is", "key": "type"},
            {"kind": "event_property_contains", "key": "content.x", "value": []},
            {"kind": "room_member_count", "is": 3},
        ]
        for condition in conditions:
            self.assertIsNone(compile_condition(condition), condition)
        rules = with_rule(RuleKind.OVERRIDE, "a", conditions=[{"kind": "device"}])
        self.assertEqual(Evaluator(rules).verdict(Told("x"), FACTS), SILENT)

    def test_content_itself(self) -> None:
        """The content as a whole is no property; one under an empty name is found by its path alone."""
        event = Told(content={"": "x"})
        self.assertFalse(self.match("content", "x", event))
        self.assertTrue(self.match("content.", "x", event))

    def test_name_of_nothing_but_repeats(self) -> None:
        """Names that nearly fit at every place are found where they do fit (security: D2)."""
        facts = evolve(FACTS, display_name="a" * 500)
        condition = {"kind": "contains_display_name"}
        self.assertFalse(holds(condition, said("a" * 65_000), facts))
        self.assertTrue(holds(condition, said("a" * 3000 + " " + "a" * 500), facts))

    def test_long_text(self) -> None:
        """Only the beginning of a body is searched (security: D2)."""
        self.assertTrue(self.match("content.body", "end", said("x " * (MAX_SEARCHED // 2 - 2) + "end")))
        self.assertFalse(self.match("content.body", "end", said("x " * MAX_SEARCHED + "end")))


class DefaultTest(SynchronousTestCase):
    """What the default rules say."""

    def verdict(self, event: Told, facts: Facts = FACTS) -> Verdict:
        """Judge by the default rules."""
        return DEFAULT_EVALUATOR.verdict(event, facts)

    def test_mentions(self) -> None:
        """Who is mentioned is alerted; whose name merely stands in the text is not."""
        self.assertEqual(self.verdict(said("x", **{"m.mentions": {"user_ids": [ALICE]}})), HIGHLIGHT)
        self.assertEqual(self.verdict(said(f"hi {ALICE}")), NOTIFY)
        for nonsense in (5, [ALICE], {"user_ids": ALICE}, {"user_ids": {ALICE: 1}}):
            self.assertEqual(self.verdict(said("x", **{"m.mentions": nonsense})), NOTIFY)

    def test_room_mention(self) -> None:
        """A mention of the room alerts if its sender may do that."""
        event = said("x", **{"m.mentions": {"room": True}})
        self.assertEqual(self.verdict(event), NOTIFY)
        self.assertEqual(self.verdict(event, evolve(FACTS, may_notify_room=True)), HIGHLIGHT)

    def test_quiet(self) -> None:
        """Notices, reactions, edits, memberships and ACLs are quiet; invites of oneself are not."""
        replace = {"m.relates_to": {"rel_type": "m.replace"}}
        quiet = [
            Told(content={"msgtype": "m.notice", "body": "x", "m.mentions": {"user_ids": [ALICE]}}),
            Told("m.reaction"),
            said("x", **replace),
            Told("m.room.encrypted", replace),
            Told("m.room.member", {"membership": "join"}, BOB),
            Told("m.room.server_acl", {}, ""),
        ]
        for event in quiet:
            self.assertEqual(self.verdict(event), SILENT, event)
        self.assertEqual(self.verdict(Told("m.room.member", {"membership": "invite"}, ALICE)), NOTIFY)
        self.assertEqual(self.verdict(Told("m.room.member", {"membership": "invite"}, BOB)), SILENT)

    def test_sounds(self) -> None:
        """A room of two makes a sound, a greater room makes none, a call rings."""
        two = evolve(FACTS, members=2)
        for event, facts, sound in (
            (said("x"), two, "default"),
            (said("x"), FACTS, None),
            (Told("m.room.encrypted"), two, "default"),
            (Told("m.call.invite"), FACTS, "ring"),
        ):
            self.assertEqual(tweaks_of(DEFAULT_EVALUATOR.actions(event, facts)).get("sound"), sound)

    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from(TYPES),
        st.sampled_from([None, "", "x"]),
        st.fixed_dictionaries(
            {},
            optional={
                "msgtype": st.sampled_from(["m.text", "m.notice", 5, None]),
                "body": st.sampled_from(["hi", 5]),
                "m.relates_to": st.sampled_from([{"rel_type": "m.replace"}, {"rel_type": "m.thread"}, 5]),
                "m.mentions": st.sampled_from([{}, {"user_ids": [BOB]}, {"room": False}]),
            },
        ),
        st.integers(1, 4),
    )
    def test_classes(self, kind: str, state_key: str | None, content: dict[str, Any], members: int) -> None:
        """The class of an event that mentions nobody here says just what the default rules say."""
        event = Told(kind, content, state_key)
        self.assertEqual(BY_DEFAULT[classify(event)], self.verdict(event, evolve(FACTS, members=members)))


class OwnRulesTest(SynchronousTestCase):
    """Rules of a user's own."""

    def verdict(self, rules: PushRules, event: Told | None = None, facts: Facts = FACTS) -> Verdict:
        """Judge a message or another event."""
        return Evaluator(rules).verdict(event or said("tea time"), facts)

    def test_kinds(self) -> None:
        """Content rules come before those of the room, these before those of the sender."""
        rules = with_rule(RuleKind.SENDER, BOB, actions=["notify", {"set_tweak": "highlight"}])
        self.assertEqual(self.verdict(rules), HIGHLIGHT)
        room = RuleKind.ROOM
        rules = rules.put(room, parse_rule(room, FACTS.room_id, {"actions": []}))
        self.assertEqual(self.verdict(rules), SILENT)
        content = RuleKind.CONTENT
        rules = rules.put(content, parse_rule(content, "t", {"actions": ["notify"], "pattern": "tea"}))
        self.assertEqual(self.verdict(rules), NOTIFY)
        self.assertEqual(self.verdict(rules, facts=evolve(FACTS, sender=ALICE)), NOTIFY)
        self.assertEqual(self.verdict(rules, said("steam")), SILENT)

    def test_off(self) -> None:
        """A rule that is off never matches; the master rule silences everything."""
        rules = with_rule(RuleKind.ROOM, FACTS.room_id, actions=[])
        off = rules.set_enabled(RuleKind.ROOM, FACTS.room_id, False)
        self.assertEqual((self.verdict(rules), self.verdict(off)), (SILENT, NOTIFY))
        mentioned = said("x", **{"m.mentions": {"user_ids": [ALICE]}})
        master = PushRules(ALICE).set_enabled(RuleKind.OVERRIDE, ".m.rule.master", True)
        self.assertEqual(self.verdict(master, mentioned), SILENT)

    def test_highlight(self) -> None:
        """A highlight needs a notification, and can be set to false."""
        tweak = {"set_tweak": "highlight"}
        for actions, wanted in (
            (["notify", tweak], HIGHLIGHT),
            (["notify", {**tweak, "value": True}], HIGHLIGHT),
            (["notify", {**tweak, "value": False}], NOTIFY),
            ([tweak], SILENT),
        ):
            self.assertEqual(
                self.verdict(with_rule(RuleKind.CONTENT, "a", pattern="tea", actions=actions)), wanted
            )

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.lists(
                st.builds(
                    lambda key, pattern: {"kind": "event_match", "key": key, "pattern": pattern},
                    st.sampled_from(["type", "content.msgtype"]),
                    st.sampled_from(
                        ["m.room.message", "M.Room.Message", "m.room.*", "m.sticker", "", "m.text"]
                    ),
                ),
                max_size=3,
            ),
            max_size=5,
        ),
        st.sampled_from(["m.room.message", "m.ROOM.message", "m.sticker", "m.text", "", "x"]),
    )
    def test_order(self, found: list[list[dict[str, Any]]], kind: str) -> None:
        """The first rule all of whose conditions hold decides, whatever types the rules are for."""
        event, rules, wanted = Told(kind, {"msgtype": "m.text"}), PushRules(ALICE), None
        for number, conditions in reversed(list(enumerate(found))):
            body = {"actions": [{"set_tweak": "sound", "value": str(number)}], "conditions": conditions}
            rules = rules.put(RuleKind.OVERRIDE, parse_rule(RuleKind.OVERRIDE, f"r{number}", body))
            if all(holds(condition, event) for condition in conditions):
                wanted = str(number)
        actions = Evaluator(rules).actions(event, FACTS)
        if wanted is None:
            self.assertEqual(actions, DEFAULT_EVALUATOR.actions(event, FACTS))
        else:
            self.assertEqual(tweaks_of(actions), {"sound": wanted})

    def test_no_conditions(self) -> None:
        """An override without conditions matches everything."""
        self.assertEqual(self.verdict(with_rule(RuleKind.OVERRIDE, "a"), Told("any")), NOTIFY)

    def test_sharing(self) -> None:
        """Equal rules have one key, unless they ask for what differs between their owners."""
        self.assertEqual(Evaluator(PushRules(ALICE)).key, Evaluator(PushRules(BOB)).key)
        rule = parse_rule(
            RuleKind.OVERRIDE, "name", {"actions": [], "conditions": [{"kind": "contains_display_name"}]}
        )
        first, second = (Evaluator(PushRules(user).put(RuleKind.OVERRIDE, rule)) for user in (ALICE, BOB))
        self.assertNotEqual(first.key, second.key)
        self.assertTrue(first.needs_display_name)
        self.assertFalse(DEFAULT_EVALUATOR.needs_display_name)
