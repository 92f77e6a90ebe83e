"""Requests that come whole and alone, as nearly all do: read in one go, by a strict grammar.

Whatever does not fit, because its body is chunked or not all there or it is in any way out of the ordinary,
is for Twisted's parser, which reads line by line. So this can accept nothing that Twisted would refuse or
frame otherwise.

Source: RFC 9112, sections 3, 5 and 6; security C15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

MAX_HEAD = 8192
"""Bytes of a head that is read here."""
MAX_DIGITS = 18
"""Digits of a length."""
_HEAD = re.compile(
    rb"(DELETE|GET|POST|PUT) ([!-~]+) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)*)\r\n",
)
_LENGTH = b"content-length"
_FOR_TWISTED = frozenset((b"transfer-encoding", b"expect"))
"""Headers that say more of what follows than its length."""


@frozen(eq=False)
class HeadFields:
    """The headers of a head, to be asked for as Twisted's are."""

    _values: Mapping[bytes, list[bytes]]
    """By name in lower case."""

    def getRawHeaders(self, name: bytes, default: Any = None) -> Any:
        """Give the values of a header in order, `default` without any."""
        return self._values.get(name.lower(), default)


@frozen(eq=False)
class WholeRequest:
    """A request with its body, which may be empty."""

    method: bytes
    target: bytes
    fields: HeadFields
    body: bytes


def read_whole(data: bytes, most: int) -> WholeRequest | None:
    """Read a request of at most so many headers with nothing behind it; None: it is not of that kind."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
    found = _HEAD.fullmatch(data, 0, end) if end > 3 else None
    if found is None:
        return None
    lines = found[3].split(b"\r\n")[:-1]
    if len(lines) > most:
        return None
    values: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        values.setdefault(name.lower(), []).append(value.strip(b" \t"))
    if values.keys() & _FOR_TWISTED or not _is_whole(values.get(_LENGTH), len(data) - end):
        return None
    return WholeRequest(found[1], found[2], HeadFields(values), data[end:])


def _is_whole(lengths: list[bytes] | None, there: int) -> bool:
    """Tell whether the body that is there is just as long as the headers say."""
    if lengths is None:
        return there == 0
    return len(lengths) == 1 and is_length(lengths[0]) and int(lengths[0]) == there


def is_length(text: bytes) -> bool:
    """Tell whether a text is a length that may be meant: digits, and not beyond what Python reads."""
    return text.isdigit() and len(text) <= MAX_DIGITS
