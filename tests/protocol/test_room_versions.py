"""Tests of the room versions as values."""

from __future__ import annotations

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import UnsupportedRoomVersion
from protocol.room_versions import (
    DEFAULT_ROOM_VERSION,
    ROOM_VERSIONS,
    EventIdFormat,
    RoomVersion,
    StateResolution,
    get_room_version,
)
from tests.protocol.helpers import ALL_VERSIONS

FIRST_WITH = {
    "enforce_key_validity": 5,
    "strict_json": 6,
    "notifications_power_levels": 6,
    "knock": 7,
    "restricted_join": 8,
    "knock_restricted_join": 10,
    "integer_power_levels": 10,
    "strict_byte_limits": 11,
    "redacts_in_content": 11,
    "implicit_room_creator": 11,
    "room_id_is_create_hash": 12,
    "privileged_creators": 12,
}
FIRST_WITHOUT = {
    "pairs_in_references": 3,
    "redaction_auth_rule": 3,
    "special_case_aliases_auth": 6,
    "create_in_auth_events": 12,
}


class RoomVersionTests(SynchronousTestCase):
    """The flags of each version."""

    def test_each_rule_begins_and_ends_where_the_specification_says(self) -> None:
        """Every flag changes in one version and stays so in all later ones."""
        flags = {field.name for field in fields(RoomVersion) if field.default in (True, False)}
        self.assertEqual(flags, FIRST_WITH.keys() | FIRST_WITHOUT.keys())
        for number, version in enumerate(ALL_VERSIONS, 1):
            for name, first in FIRST_WITH.items():
                self.assertEqual(getattr(version, name), number >= first, f"{name} in {number}")
            for name, first in FIRST_WITHOUT.items():
                self.assertEqual(getattr(version, name), number < first, f"{name} in {number}")

    def test_algorithms(self) -> None:
        """State resolution and the form of event IDs are those of the feature matrix."""
        v1, v2, v21 = StateResolution.V1, StateResolution.V2, StateResolution.V2_1
        self.assertEqual([version.state_resolution for version in ALL_VERSIONS], [v1, *[v2] * 10, v21])
        opaque, standard, urlsafe = EventIdFormat
        self.assertEqual(
            [version.event_id_format for version in ALL_VERSIONS], [opaque, opaque, standard, *[urlsafe] * 9]
        )
        self.assertEqual([version.hashed_event_ids for version in ALL_VERSIONS], [False] * 2 + [True] * 10)

    def test_versions_are_found_by_id(self) -> None:
        """All twelve versions are there, under their own names; any other is an error."""
        self.assertEqual(list(ROOM_VERSIONS), [str(number) for number in range(1, 13)])
        for name, version in ROOM_VERSIONS.items():
            self.assertIs(get_room_version(name), version)
            self.assertEqual(version.id, name)
        self.assertEqual(DEFAULT_ROOM_VERSION.id, "12")
        for name in ("", "0", "13", "org.example", "1" * 1000):
            with self.assertRaises(UnsupportedRoomVersion):
                get_room_version(name)
