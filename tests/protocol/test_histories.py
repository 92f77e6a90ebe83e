"""Histories that may be: the rules let all of them pass, and their forks resolve the same for everybody."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.auth_rules import AuthError, check_auth, check_auth_events
from protocol.room_versions import RoomVersion
from protocol.state_resolution import resolve_in_memory
from tests.protocol.helpers import ALL_VERSIONS
from tests.protocol.histories import History, Step

VERSIONS = st.sampled_from(ALL_VERSIONS)
COURSE = st.lists(st.integers(0, 999), max_size=25)
FORKS = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=8), min_size=2, max_size=3)


class LegalTest(SynchronousTestCase):
    """What may happen."""

    @settings(max_examples=120, deadline=None)
    @given(VERSIONS, COURSE)
    def test_passes(self, version: RoomVersion, course: list[int]) -> None:
        """Each event passes by those it names and by the state before it, in all versions (security: S3)."""
        for event, named, before in History.begin(version).grow(course):
            check_auth_events(event, named)
            check_auth(event, before)
            by_named = {each.key: each for each in named}
            check_auth(event, {("m.room.create", ""): before["m.room.create", ""], **by_named})

    @settings(max_examples=120, deadline=None)
    @given(VERSIONS, COURSE, st.integers(0, 999))
    def test_all_that_may_be_and_no_more(self, version: RoomVersion, course: list[int], which: int) -> None:
        """A membership passes if and only if the model has it among what may happen (security: S3, S15)."""
        history = History.begin(version)
        for _ in history.grow(course):
            pass
        legal = {_name(step) for step in history.model.steps()}
        users = list(history.model.members) or ["@alice:alpha.example"]
        target = users[which % len(users)]
        for step in _memberships(history, target):
            fork = history.fork()
            event, named = fork.add(step)
            try:
                check_auth_events(event, named)
                check_auth(event, history.state)
                allowed = True
            except AuthError:
                allowed = False
            self.assertEqual(allowed, _name(step) in legal, (version.id, step))


def _name(step: Step) -> tuple[str, str | None, str]:
    return (step.sender, step.state_key, step.content.get("membership", step.type))


def _memberships(history: History, target: str) -> list[Step]:
    """Give each membership that anybody could try to give a user; a join without anybody's authority."""
    senders = {step.sender for step in history.model.steps()}
    rule_asks = "restricted" in history.model.rule
    return [
        Step("m.room.member", sender, {"membership": membership}, target)
        for sender in sorted(senders)
        for membership in ("join", "invite", "leave", "ban", "knock")
        if not (rule_asks and membership == "join")
    ]


class ForkTest(SynchronousTestCase):
    """What comes of histories that part."""

    @settings(max_examples=100, deadline=None)
    @given(VERSIONS, COURSE, FORKS, st.randoms(use_true_random=False))
    def test_resolve(
        self, version: RoomVersion, course: list[int], forks: list[list[int]], dice: object
    ) -> None:
        """Forks resolve to one state whatever their order, which resolves to itself (security: S6)."""
        trunk = History.begin(version)
        for _ in trunk.grow(course):
            pass
        states, events = [], {}
        for number, steps in enumerate(forks):
            fork = trunk.fork()
            for _ in fork.grow([each + number for each in steps]):
                pass
            states.append(fork.state_ids())
            events.update({event.event_id: event for event in fork.events})
        resolved = resolve_in_memory(version, states, events)
        dice.shuffle(states)  # type: ignore[attr-defined]
        self.assertEqual(resolve_in_memory(version, [*states, states[0]], events), resolved)
        self.assertEqual(resolve_in_memory(version, [resolved, dict(resolved)], events), resolved)
        agreed = set(states[0].items()).intersection(*(each.items() for each in states))
        self.assertLessEqual(agreed, set(resolved.items()))
        self.assertIn(("m.room.create", ""), resolved)
