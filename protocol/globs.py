"""Globs: `*` stands for any characters, `?` for exactly one; nothing else is special.

Patterns come from strangers, so the matcher is linear in the text whatever the pattern (security: D2), and
no regular expression is built. A pattern is cut at its stars into pieces; each piece is looked for where
the one before it ended. The first place that fits is the best, since it leaves the most room.

Source: appendices.md, "Glob-style matching"; client-server-api/modules/push.md, "Conditions".
"""

from __future__ import annotations

import re

from protocol.errors import InvalidParam
from protocol.limits import MAX_GLOB_LENGTH

_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_NOT_WORD = re.compile("[^A-Za-z0-9_]")


class Glob:
    """A pattern, cut up and ready; case does not matter to it."""

    __slots__ = ("_first", "_last", "_middle", "pattern")

    def __init__(self, pattern: str) -> None:
        """Take a pattern; raises InvalidParam if it is longer than 512 code points."""
        if len(pattern) > MAX_GLOB_LENGTH:
            raise InvalidParam(f"A pattern may not be longer than {MAX_GLOB_LENGTH} characters")
        self.pattern = pattern
        first, *rest = [_Piece(text) for text in pattern.lower().split("*")]
        self._first = first
        self._last = rest.pop() if rest else None
        self._middle = [piece for piece in rest if piece.length]

    def matches(self, text: str) -> bool:
        """Tell whether the pattern matches all of `text`."""
        text = text.lower()
        if self._last is None:
            return len(text) == self._first.length and self._first.is_at(text, 0)
        end = len(text) - self._last.length
        if end < self._first.length or not self._first.is_at(text, 0) or not self._last.is_at(text, end):
            return False
        place = self._skip_middle(text, self._first.length)
        return place is not None and place <= end

    def matches_words(self, text: str) -> bool:
        """Tell whether the pattern matches a part of `text` that starts and ends at word boundaries."""
        text = text.lower()
        if self._last is None:
            return self._first.find(text, 0, starts=True, ends=True) is not None
        place = self._first.find(text, 0, starts=True)
        if place is not None:
            place = self._skip_middle(text, place)
        if place is None:
            return False
        return not self._last.length or self._last.find(text, place, ends=True) is not None

    def _skip_middle(self, text: str, place: int) -> int | None:
        """Find the pieces between the stars one after the other, from `place`; give where the last ends."""
        for piece in self._middle:
            end = piece.find(text, place)
            if end is None:
                return None
            place = end
        return place


class _Piece:
    """A part of a pattern without stars."""

    __slots__ = ("_any", "_masks", "length", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.length = len(text)
        self._any = 0
        """A bit for each question mark."""
        self._masks: dict[str, int] | None = None
        """By character, a bit for each place where it may stand; None: the piece is plain text."""
        if "?" in text:
            self._masks = {}
            for number, character in enumerate(text):
                if character == "?":
                    self._any |= 1 << number
                else:
                    self._masks[character] = self._masks.get(character, 0) | 1 << number

    def is_at(self, text: str, place: int) -> bool:
        """Tell whether the piece stands at `place`."""
        if self._masks is None:
            return text.startswith(self.text, place)
        part = text[place : place + self.length]
        return len(part) == self.length and all(
            wanted in ("?", got) for wanted, got in zip(self.text, part, strict=True)
        )

    def find(self, text: str, place: int, *, starts: bool = False, ends: bool = False) -> int | None:
        """Give where the first occurrence from `place` on ends.

        With `starts` or `ends` it must start or end at a word boundary.
        """
        if self._masks is None:
            return self._find_plain(text, place, starts, ends)
        return self._find_with_gaps(text, place, starts, ends, self._masks)

    def _find_plain(self, text: str, place: int, starts: bool, ends: bool) -> int | None:
        """Look for plain text; after a vain find go on where the next boundary would fit."""
        start = text.find(self.text, place)
        while start >= 0:
            end = start + self.length
            place = start
            if starts and not _is_boundary(text, start):
                place = _next_boundary(text, start)
            if ends and not _is_boundary(text, end):
                place = max(place, _next_boundary(text, end) - self.length)
            if place == start:
                return end
            start = text.find(self.text, place)
        return None

    def _find_with_gaps(
        self, text: str, place: int, starts: bool, ends: bool, masks: dict[str, int]
    ) -> int | None:
        """Run the shift-and automaton: a bit of `state` for each beginning of the piece that ends here."""
        state, whole, anything = 0, 1 << (self.length - 1), self._any
        for end in range(place + 1, len(text) + 1):
            state = (state << 1 | 1) & (masks.get(text[end - 1], 0) | anything)
            if not state & whole:
                continue
            start = end - self.length
            if (not starts or _is_boundary(text, start)) and (not ends or _is_boundary(text, end)):
                return end
        return None


def _is_boundary(text: str, place: int) -> bool:
    """Tell whether a word begins or ends at `place`, or none is there."""
    return place in (0, len(text)) or text[place - 1] not in _WORD or text[place] not in _WORD


def _next_boundary(text: str, place: int) -> int:
    """Give the first boundary after `place`; past the end of the text there is none."""
    found = _NOT_WORD.search(text, place)
    if found is None:
        return len(text) if place < len(text) else place + 1
    return max(found.start(), place + 1)


def glob_matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern used once matches all of `text`; raises InvalidParam if it is too long."""
    return Glob(pattern).matches(text)
