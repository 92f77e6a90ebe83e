"""Tests of who sees an event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.visibility import allows, memberships_needed, parse_visibility, user_sees

VISIBILITIES = ("world_readable", "shared", "invited", "joined")
MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


class UserTest(SynchronousTestCase):
    """What a user sees."""

    def test_table(self) -> None:
        """Each visibility with each membership, of users who were joined later and who were not (C2)."""
        always = {("world_readable", each) for each in MEMBERSHIPS} | {
            (each, "join") for each in VISIBILITIES
        }
        always.add(("invited", "invite"))
        for visibility in VISIBILITIES:
            for membership in MEMBERSHIPS:
                found = tuple(allows(visibility, membership, later) for later in (False, True))
                seen = (visibility, membership) in always
                expected = (seen, seen or visibility == "shared")
                self.assertEqual(found, expected, (visibility, membership))

    def test_changes(self) -> None:
        """A change of the visibility, or of one's own membership, is seen by what was before or after."""
        for visibilities in (("world_readable", "joined"), ("joined", "world_readable")):
            self.assertTrue(user_sees(visibilities, ("leave",), False))
        for memberships in (("leave", "join"), ("join", "leave"), ("join", "ban")):
            self.assertTrue(user_sees(("joined",), iter(memberships), False))
        self.assertFalse(user_sees(("joined", "invited"), ("leave", "ban"), True))
        self.assertTrue(user_sees(iter(("joined", "invited")), iter(("leave", "invite")), False))

    @given(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()) | st.just({"a": 1}))
    def test_nonsense(self, value: object) -> None:
        """A visibility that is not understood is `shared` (security: F16)."""
        self.assertEqual(parse_visibility(value), value if value in VISIBILITIES else "shared")


class ServerTest(SynchronousTestCase):
    """What another server sees."""

    def test_table(self) -> None:
        """A server in the room sees what one of its users could see or could come to see (security: F10)."""
        for visibility in VISIBILITIES:
            needed = memberships_needed(visibility)
            for membership in MEMBERSHIPS:
                could = allows(visibility, membership, joined_after=True)
                self.assertEqual(needed is None or membership in needed, could, (visibility, membership))
