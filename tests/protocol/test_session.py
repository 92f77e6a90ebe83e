"""Tests of the WebSocket session's state machine and window."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import BadJson, Forbidden, MatrixError
from protocol.frames import Ack, Auth, ClientFrame, Message, Ping, Request
from protocol.session import NEXT, Event, State, Window, next_state

FRAMES: dict[type, ClientFrame] = {
    frame: frame(
        **{name: value for name, value in (("id", 1), ("seq", 0)) if name in frame.__struct_fields__}
    )
    for frame in (Auth, Ack, Ping)
}


class MachineTests(SynchronousTestCase):
    """What may happen when."""

    def test_a_session_in_order(self) -> None:
        """Greeting, authentication, work and end follow each other."""
        state = next_state(State.GREETED, Auth(token="t"))
        self.assertIs(state, State.CHECKING)
        state = next_state(state, Event.ACCEPTED)
        self.assertIs(next_state(state, Request(id=1, method="GET", path="/")), State.LIVE)
        self.assertIs(next_state(state, Event.ENDED), State.CLOSED)

    def test_work_before_authentication_is_refused(self) -> None:
        """Before authentication, everything but auth and heartbeats is answered "Not authenticated"."""
        for state in (State.GREETED, State.CHECKING):
            message = Message(content={}, txn_id="1", room_id="!a:b")
            error = self.assertRaises(Forbidden, next_state, state, message)
            self.assertEqual(error.error, "Not authenticated")

    def test_every_state_and_input_gives_a_state_or_an_error(self) -> None:
        """Any state with any input gives a legal state or a protocol error."""
        for state in State:
            for happening in (*FRAMES.values(), *Event):
                try:
                    self.assertIsInstance(next_state(state, happening), State)
                except MatrixError as error:
                    self.assertTrue(error.error)

    def test_live_takes_every_frame(self) -> None:
        """Each frame type has its place in a live session."""
        for frame in get_args(ClientFrame):
            self.assertIn((State.LIVE, frame), NEXT)


class WindowTests(SynchronousTestCase):
    """Flow control."""

    def test_an_ack_of_the_future_is_refused(self) -> None:
        """`ack` of a frame that was never sent is an error (security: W10)."""
        window = Window(4, 1000)
        window.send(10)
        self.assertRaises(BadJson, window.acknowledge, 2)

    @given(st.lists(st.one_of(st.integers(1, 500), st.just(None)), max_size=60))
    def test_the_window_is_bounded(self, steps: list[int | None]) -> None:
        """At most the window's frames are unacknowledged, and an ack opens it."""
        window = Window(4, 1000)
        under_way = 0
        for size in steps:
            if size is None:
                window.acknowledge(window.last_sent)
                under_way = 0
                self.assertTrue(window.is_open)
            elif window.is_open:
                window.send(size)
                under_way += 1
            self.assertLessEqual(under_way, 4)
