"""Power levels: malformed ones of every kind, in every version, for every action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protocol.identifiers import UserID
from protocol.power_levels import INFINITE, PowerLevels, parse_level
from protocol.room_versions import V5, V9, V10, V11, V12
from tests.protocol.helpers import ALICE, ALL_VERSIONS, BOB
from tests.protocol.rooms import Room

CAROL = UserID("@carol:alpha.example")
MALFORMED = ("100", " 7 ", "+1", "x", "", None, True, [], {}, "9" * 30)
STRINGS = {"100": 100, " 7 ": 7, "+1": 1}
"""Malformed levels that count up to version 9."""
ACTIONS: dict[str, Callable[[PowerLevels], int]] = {
    "ban": lambda power: power.ban,
    "kick": lambda power: power.kick,
    "redact": lambda power: power.redact,
    "invite": lambda power: power.invite,
    "users_default": lambda power: power.user(CAROL),
    "events_default": lambda power: power.event("m.room.message", False),
    "state_default": lambda power: power.event("m.room.name", True),
}
DEFAULTS = {"ban": 50, "kick": 50, "redact": 50, "state_default": 50}
"""Levels where nothing is said; those of other names are 0."""


class LevelsTest(SynchronousTestCase):
    """What levels are in force."""

    def test_defaults(self) -> None:
        """Without levels, and with empty ones, the defaults of the specification hold (security: S4)."""
        for version in ALL_VERSIONS:
            room = Room.of(version, ALICE)
            empty = room.set("m.room.power_levels", {})
            for levels in (None, empty):
                power = PowerLevels.of(version, room.create, levels)
                found = {name: level(power) for name, level in ACTIONS.items()}
                self.assertEqual(found, {name: DEFAULTS.get(name, 0) for name in ACTIONS}, version.id)
                self.assertEqual(power.notifications("room"), 50)

    def test_creator(self) -> None:
        """The creator has 100 while there are no levels, and stands above them from version 12 on."""
        for version in ALL_VERSIONS:
            room = Room.of(version, ALICE)
            empty = room.set("m.room.power_levels", {})
            without = PowerLevels.of(version, room.create, None).user(ALICE)
            with_levels = PowerLevels.of(version, room.create, empty).user(ALICE)
            expected = (INFINITE, INFINITE) if version.privileged_creators else (100, 0)
            self.assertEqual((without, with_levels), expected, version.id)

    def test_malformed(self) -> None:
        """A malformed level counts as absent; strings count up to version 9 (security: S4)."""
        for version in ALL_VERSIONS:
            for value in MALFORMED:
                for name, action in ACTIONS.items():
                    room = Room.of(version, ALICE)
                    power = PowerLevels.of(
                        version, room.create, room.set("m.room.power_levels", {name: value})
                    )
                    expected = DEFAULTS.get(name, 0)
                    if isinstance(value, str) and not version.integer_power_levels:
                        expected = STRINGS.get(value, expected)
                    self.assertEqual(action(power), expected, (version.id, name, value))

    def test_malformed_groups(self) -> None:
        """Groups of a wrong type are empty, and of their levels only good ones count (security: S4, F16)."""
        for version in ALL_VERSIONS:
            for value in (None, [], "x", 3, {"m.room.name": None, CAROL: {}, "room": []}):
                room = Room.of(version, ALICE)
                content = dict.fromkeys(("users", "events", "notifications"), value)
                power = PowerLevels.of(version, room.create, room.set("m.room.power_levels", content))
                found = (power.user(CAROL), power.event("m.room.name", True), power.notifications("room"))
                self.assertEqual(found, (0, 50, 50))

    def test_parse(self) -> None:
        """Floats count where JSON may hold them, booleans nowhere (security: S4)."""
        self.assertEqual(parse_level(50.9, V5), 50)
        self.assertIsNone(parse_level(50.9, V11))
        self.assertEqual(parse_level("-3", V9), -3)
        self.assertIsNone(parse_level("-3", V10))
        stringy = {"000100": 100, " -007\t": -7, "0": 0, "+00": 0, "0" * 60_000 + "5": 5}
        for text, level in stringy.items():
            self.assertEqual(parse_level(text, V9), level, text[:9])
        for text in ("+", "-", " ", "1 2", "+-1", "1_0", "1.0", "\u0661", "9" * 60_000, "0x1"):
            self.assertIsNone(parse_level(text, V9), text[:9])
        for value in (True, False, float("nan"), float("inf"), float("-inf")):
            for version in ALL_VERSIONS:
                self.assertIsNone(parse_level(value, version), value)


class ChangesTest(SynchronousTestCase):
    """Who may change which level."""

    def _room(self, version: Any, **levels: Any) -> tuple[Room, dict[str, Any]]:
        room = Room.of(version, ALICE).with_members(ALICE, BOB, CAROL)
        content = {"users": {BOB: 60, CAROL: 60}, "state_default": 50, **levels}
        room.set("m.room.power_levels", content)
        return room, content

    def _allows(self, room: Room, content: dict[str, Any], sender: UserID = BOB) -> bool:
        return room.allows(room.event("m.room.power_levels", sender, content, ""))

    def test_nobody_grants_above_himself(self) -> None:
        """A level above the sender's is not set, given, taken or changed (security: S4)."""
        for version in ALL_VERSIONS:
            room, content = self._room(version, ban=70, events={"m.room.name": 70})
            self.assertTrue(self._allows(room, content))
            for change in (
                {"kick": 61},
                {"ban": 10},
                {"users": {BOB: 61, CAROL: 60}},
                {"users": {BOB: 60, CAROL: 60, "@new:alpha.example": 61}},
                {"events": {"m.room.name": 10}},
                {"events": {}},
                {"users_default": 61},
            ):
                self.assertFalse(self._allows(room, {**content, **change}), (version.id, change))
            self.assertTrue(self._allows(room, {**content, "kick": 60}))

    def test_equals(self) -> None:
        """Someone of the sender's level keeps it; the sender may step down (security: S4)."""
        for version in ALL_VERSIONS:
            room, content = self._room(version)
            self.assertFalse(self._allows(room, {**content, "users": {BOB: 60, CAROL: 0}}))
            self.assertFalse(self._allows(room, {**content, "users": {BOB: 60}}))
            self.assertTrue(self._allows(room, {**content, "users": {CAROL: 60}}))

    def test_notifications(self) -> None:
        """Levels of notifications are guarded from version 6 on (security: S4)."""
        for version in ALL_VERSIONS:
            room, content = self._room(version)
            allowed = self._allows(room, {**content, "notifications": {"room": 99}})
            self.assertEqual(allowed, not version.notifications_power_levels, version.id)

    def test_refuse_malformed(self) -> None:
        """From version 10 on each level is an integer; users are checked in all versions (security: S4)."""
        for version in ALL_VERSIONS:
            room, content = self._room(version)
            malformed: tuple[object, ...] = ("0", None, [], {}, True)
            for value in malformed:
                strict = version.integer_power_levels
                if strict:
                    for name in ACTIONS:
                        self.assertFalse(self._allows(room, {**content, name: value}), (version.id, name))
                    for group in ("events", "notifications"):
                        self.assertFalse(self._allows(room, {**content, group: {"x": value}}))
                users = {**content["users"], "@new:alpha.example": value}
                self.assertEqual(self._allows(room, {**content, "users": users}), value == "0" and not strict)
            groups: tuple[object, ...] = (None, [], "x", {**content["users"], "nobody": 0})
            for users_value in groups:
                self.assertFalse(self._allows(room, {**content, "users": users_value}), version.id)

    def test_extremes(self) -> None:
        """The largest integers are levels like others (security: S4)."""
        highest = 2**53 - 1
        for version in ALL_VERSIONS:
            users = {BOB: highest} if version is V12 else {ALICE: highest, BOB: highest}
            room = Room.of(version, ALICE).with_members(ALICE, BOB)
            room.set("m.room.power_levels", {"users": users})
            content = {"users": users, "ban": highest, "invite": -highest}
            self.assertTrue(self._allows(room, content, ALICE))
            self.assertTrue(self._allows(room, content, BOB))
