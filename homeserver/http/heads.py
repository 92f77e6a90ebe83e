"""Heads of requests that come whole and alone, as nearly all do: read in one go, by a strict grammar.

Whatever does not fit, because it has a body or is in any way out of the ordinary, is for Twisted's parser,
which reads line by line. So this can accept nothing that Twisted would refuse or frame otherwise.

Source: RFC 9112, sections 3 and 5; security C15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

MAX_HEAD = 8192
"""Bytes of a head that is read here."""
_HEAD = re.compile(
    rb"GET ([!-~]+) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)*)\r\n",
)
_FOR_TWISTED = frozenset((b"content-length", b"transfer-encoding", b"expect"))
"""Headers that say more of what follows."""


@frozen(eq=False)
class HeadFields:
    """The headers of a head, to be asked for as Twisted's are."""

    _values: Mapping[bytes, list[bytes]]
    """By name in lower case."""

    def getRawHeaders(self, name: bytes, default: Any = None) -> Any:
        """Give the values of a header in order, `default` without any."""
        return self._values.get(name.lower(), default)


@frozen(eq=False)
class Head:
    """A GET without a body."""

    target: bytes
    fields: HeadFields


def read_head(data: bytes, most: int) -> Head | None:
    """Read a whole head of at most so many headers with nothing behind it; None: it is not of that kind."""
    if len(data) > MAX_HEAD or data[-4:] != b"\r\n\r\n":
        return None
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    lines = found[2].split(b"\r\n")[:-1]
    if len(lines) > most:
        return None
    values: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        values.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return None if values.keys() & _FOR_TWISTED else Head(found[1], HeadFields(values))
