"""Who writes to the feed beside this process, so that a process that is alone need not notify itself.

Whoever begins to listen says so, whoever hears of one for the first time answers, and whoever stops takes
leave. One that died is kept: it costs notifications nobody hears. One that is not known yet finds what it
was not told of by looking, as it does for any notification that is lost.
"""

from __future__ import annotations

from attrs import define, field

GREETING, ANSWER, LEAVE = "hello", "here", "gone"
"""What a notification says behind the name of its writer; with the name alone, that the feed moved."""


@define(eq=False)
class Writers:
    """The writers this process has heard of. Changed on the thread that listens, read on those that write."""

    own: str
    """The name of this process."""
    _others: frozenset[str] = field(default=frozenset(), init=False)

    @property
    def told(self) -> str | None:
        """Give the name under which others are notified, None if there is nobody else."""
        return self.own if self._others else None

    def hear(self, payload: str) -> str | None:
        """Take in a notification of another writer, and give what is to be said in answer."""
        name, _, word = payload.partition(" ")
        if word == LEAVE:
            self._others -= {name}
            return None
        is_new = name not in self._others
        self._others |= {name}
        return f"{self.own} {ANSWER}" if word == GREETING and is_new else None

    def is_own(self, payload: str) -> bool:
        """Tell whether this process has said it."""
        return payload.partition(" ")[0] == self.own
