"""Auth clocks: the auth chain of a state event as numbers, so that differences of chains are arithmetic.

Every state event lies on one *chain*, at one *number*: a chain is a line in which each event has the one
before it in its auth chain, and is named by the nid of its first event. The auth chain of an event is then
{chain: highest number}. Pure.

An event may extend the chain of the event it replaces, if that is the chain's last; nobody else may do
so at the same time, so whoever extends must hold the room's head (compare-and-set) and know the chain's
tail. Everything else begins a chain of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

Reach = Mapping[int, int]
"""Part of an auth chain: of each chain, all events up to this number."""


@frozen
class AuthClock:
    """Where a state event lies, and what its auth chain reaches (itself not counted)."""

    chain: int
    number: int
    reach: Reach

    def pack(self) -> bytes:
        """Write `reach`: chains ascending, each as the difference to the one before, and its number."""
        out = bytearray()
        last = 0
        for chain in sorted(self.reach):
            _write(out, chain - last)
            _write(out, self.reach[chain])
            last = chain
        return bytes(out)

    @classmethod
    def unpack(cls, chain: int, number: int, data: bytes) -> AuthClock:
        """Read what `pack` wrote."""
        return cls(chain, number, unpack_reach(data))


def unpack_reach(data: bytes) -> dict[int, int]:
    """Read the reach that `AuthClock.pack` wrote."""
    numbers = list(_read(data))
    reach: dict[int, int] = {}
    at = 0
    for step, highest in zip(numbers[::2], numbers[1::2], strict=True):
        at += step
        reach[at] = highest
    return reach


@frozen
class Span:
    """A stretch of a chain: the events with `after < number <= upto`."""

    chain: int
    after: int
    upto: int


def union(clocks: Iterable[AuthClock]) -> dict[int, int]:
    """Give the auth chain of a set of events, the events themselves included."""
    reach: dict[int, int] = {}
    for clock in clocks:
        if clock.number > reach.get(clock.chain, 0):
            reach[clock.chain] = clock.number
        extend(reach, clock.reach)
    return reach


def extend(reach: dict[int, int], other: Reach) -> None:
    """Let `reach` hold another part of auth chains too."""
    for chain, number in other.items():
        if number > reach.get(chain, 0):
            reach[chain] = number


def assign(nid: int, auth: Iterable[AuthClock], replaced: AuthClock | None, tail: int) -> AuthClock:
    """Place a new state event, given the clocks of its auth events.

    `replaced` is the clock of the event it replaces, if that is one of its auth events, and `tail` the last
    number on that event's chain.
    """
    reach = union(auth)
    if replaced is not None and replaced.number == tail:
        return AuthClock(replaced.chain, replaced.number + 1, reach)
    return AuthClock(nid, 1, reach)


def difference(reaches: Sequence[Reach]) -> list[Span]:
    """Give what lies in some of these auth chains but not in all."""
    spans: list[Span] = []
    for chain in sorted(set().union(*reaches)):
        numbers = [reach.get(chain, 0) for reach in reaches]
        lowest, highest = min(numbers), max(numbers)
        if lowest < highest:
            spans.append(Span(chain, lowest, highest))
    return spans


def contains(reach: Reach, chain: int, number: int) -> bool:
    """Tell whether an event lies in an auth chain."""
    return number <= reach.get(chain, 0)


def _write(out: bytearray, number: int) -> None:
    """Append a number in groups of 7 bits, the lowest first."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _read(data: bytes) -> Iterable[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
