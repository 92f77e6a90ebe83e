"""Frames that wait for an answer: so many at a time, each under its own ID, any of them given up.

Work that is given up goes on to its end (it may be half way into the database) and counts until then; only
its answer is dropped.

Source: protocol/spec.md, "Requests"; security W12.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import Factory, define

from homeserver.background import run_in_background
from homeserver.http.answers import error_response
from protocol.canonical_json import dumps
from protocol.errors import BadJson, LimitExceeded
from protocol.frames import Cancel

MAX_REQUESTS = 32
"""Frames of one connection that may be without an answer."""
RETRY_MS = 100
"""What a client with too many is told to wait."""

RequestID = str | int | None
Work = Callable[[], Awaitable[bytes | None]]


class _Asked:
    """One frame that has no answer yet; compared by identity."""

    __slots__ = ()


@define(eq=False)
class Asking:
    """The frames of one connection that have no answer yet."""

    send: Callable[[bytes], None]
    _running: int = 0
    _awaited: dict[str | int, _Asked] = Factory(dict)

    def start(self, frame_id: RequestID, work: Work, what: str) -> None:
        """Do `work` and send the frame it gives, or the error it raises.

        Raises:
            LimitExceeded: too many are under way.
            BadJson: the ID is that of another frame without an answer.
        """
        if self._running >= MAX_REQUESTS:
            raise LimitExceeded(RETRY_MS, f"At most {MAX_REQUESTS} requests may be without an answer")
        if frame_id in self._awaited:
            raise BadJson("id: another request without an answer has this id")
        asked = _Asked()
        if frame_id is not None:
            self._awaited[frame_id] = asked
        self._running += 1
        run_in_background(self._run(frame_id, asked, work, what), what)

    def cancel(self, frame: Cancel) -> None:
        """Drop the answer of a request; one that has been answered already does not matter."""
        self._awaited.pop(frame.id, None)

    def stop(self) -> None:
        """Drop all answers: nobody is there to read them."""
        self._awaited.clear()
        self.send = _nowhere

    async def _run(self, frame_id: RequestID, asked: _Asked, work: Work, what: str) -> None:
        try:
            answer = await work()
        except Exception as error:
            answer = error_frame(error, frame_id, what)
        finally:
            self._running -= 1
        if frame_id is not None:
            if self._awaited.get(frame_id) is not asked:
                return
            del self._awaited[frame_id]
        if answer is not None:
            self.send(answer)


def error_frame(error: Exception, frame_id: RequestID, what: str) -> bytes:
    """Give the `error` frame for a frame that was refused; `what` names it in the log."""
    return b'{"type":"error"%b,%b' % (id_member(frame_id), error_response(error, what).body[1:])


def id_member(frame_id: RequestID) -> bytes:
    """Give the member `id` behind a comma, nothing for a frame without one."""
    return b"" if frame_id is None else b',"id":' + dumps(frame_id)


def _nowhere(frame: bytes) -> None:
    """Send nothing."""
