"""Tokens of `/sync` and of history: where a reader stands.

A sync token `s{epoch}_{pos}_{device}_{ring}.{n}` names a place between two entries of the feed, the
last to-device message contained, and a place in the ring of typing and presence. A feed token
`s{epoch}_{pos}` is its short form, given as `prev_batch`. A history token `t{depth}_{nid}` names an
event in the order of history. Tokens hold no secret and grant nothing: one made up or taken from
another user only moves the reader's own place.

Source: client-server-api/_index.md, "Syncing"; design of positions in protocol/spec.md.
"""

from __future__ import annotations

import re
from typing import Protocol

from attrs import evolve, frozen

from protocol.errors import InvalidParam, UnknownPos

MAX_NUMBER = 2**63 - 1
_NUMBER = r"(0|[1-9][0-9]{0,18})"
_SYNC = re.compile(rf"s{_NUMBER}_{_NUMBER}_{_NUMBER}_([0-9a-z]{{1,16}})\.{_NUMBER}", re.ASCII)
_FEED = re.compile(rf"s{_NUMBER}_{_NUMBER}", re.ASCII)
_HISTORY = re.compile(rf"t{_NUMBER}_{_NUMBER}", re.ASCII)


@frozen
class EphemeralPlace:
    """A place in the ring of typing and presence: the ring's name, and how far it was read."""

    ring: str
    n: int


@frozen
class SyncToken:
    """Where a session stands."""

    epoch: int
    pos: int
    device: int
    """The greatest number of a to-device message contained; 0: none yet."""
    place: EphemeralPlace

    def __str__(self) -> str:
        """Give the text that travels."""
        return f"s{self.epoch}_{self.pos}_{self.device}_{self.place.ring}.{self.place.n}"

    def moved(self, pos: int) -> SyncToken:
        """Give the token at another feed position."""
        return evolve(self, pos=pos)


@frozen
class FeedToken:
    """A place between two entries of the feed, without a session's own places."""

    epoch: int
    pos: int

    def __str__(self) -> str:
        """Give the text that travels."""
        return f"s{self.epoch}_{self.pos}"


@frozen(order=True)
class HistoryToken:
    """A place in history: just at the event (depth, nid); which side depends on the direction read."""

    depth: int
    nid: int

    def __str__(self) -> str:
        """Give the text that travels."""
        return f"t{self.depth}_{self.nid}"


class Positions(Protocol):
    """What the feed's tail tells about positions."""

    @property
    def position(self) -> int:
        """Tell the last position known here."""

    async def catch_up(self) -> object:
        """Read what other writers committed."""


def _numbers(texts: tuple[str, ...]) -> tuple[int, ...]:
    """Turn matched digits into numbers; raise InvalidParam past 2^63-1."""
    numbers = tuple(int(text) for text in texts)
    if max(numbers) > MAX_NUMBER:
        raise InvalidParam("the token holds a number out of range")
    return numbers


def parse_sync_token(text: str) -> SyncToken:
    """Read a sync token, or its short form; raise InvalidParam for anything else."""
    match = _SYNC.fullmatch(text)
    if match is None:
        short = _FEED.fullmatch(text)
        if short is None:
            raise InvalidParam("since is not a sync token of this server")
        epoch, pos = _numbers((short[1], short[2]))
        return SyncToken(epoch, pos, 0, EphemeralPlace("0", 0))
    epoch, pos, device, n = _numbers((match[1], match[2], match[3], match[5]))
    return SyncToken(epoch, pos, device, EphemeralPlace(match[4], n))


def parse_history_token(text: str) -> HistoryToken | FeedToken:
    """Read a token of history or of sync, as history endpoints take both; raise InvalidParam."""
    match = _HISTORY.fullmatch(text)
    if match is not None:
        return HistoryToken(*_numbers((match[1], match[2])))
    try:
        token = parse_sync_token(text)
    except InvalidParam as error:
        raise InvalidParam("the token is not one of this server") from error
    return FeedToken(token.epoch, token.pos)


async def require_known(epoch: int, pos: int, current_epoch: int, feed: Positions) -> None:
    """Raise UnknownPos for a token of another epoch or beyond the feed, catching up first."""
    if epoch != current_epoch:
        raise UnknownPos("the token is of another life of this server: sync afresh")
    if pos > feed.position:
        await feed.catch_up()
    if pos > feed.position:
        raise UnknownPos("the token lies beyond what this server knows: sync afresh")
