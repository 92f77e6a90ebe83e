"""An HTTP/1.1 answer as it comes off the wire, read strictly and within bounds. Bytes in, answer out; no I/O.

An answer whose framing leaves room for doubt is refused: nothing after it could be trusted.

Source: RFC 9112, 4 (status line), 5 (fields), 6 (body), 7.1 (chunks), 9.3 (persistence).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from attrs import define, field, frozen

from homeserver.http.outbound_errors import AnswerTooLarge, CannotConnect

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of the status line and headers of one answer, of interim answers before it, and of trailers."""
MAX_CHUNK_LINE = 1024
"""Bytes of the line that begins a chunk."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\0\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[^\0\n]*)?")
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_BODILESS = frozenset({204, 304})


@frozen
class OutboundAnswer:
    """An answer read whole: status, headers with lower-case names (the first of each), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Part(Enum):
    HEAD = 1
    BODY = 2
    """Of a length known beforehand."""
    REST = 3
    """Up to the end of the connection."""
    CHUNK_LINE = 4
    CHUNK = 5
    """With the line end after it."""
    TRAILERS = 6


@define(eq=False)
class AnswerReader:
    """Reads the answer to one request."""

    is_head: bool
    """Whether the request was HEAD, whose answer has no body whatever its headers say."""
    max_bytes: int
    begun: bool = field(default=False, init=False)
    """Whether anything of an answer has come."""
    persistent: bool = field(default=True, init=False)
    """Whether the connection may serve another request after this one."""
    _part: _Part = field(default=_Part.HEAD, init=False)
    _buffer: bytearray = field(factory=bytearray, init=False)
    _body: bytearray = field(factory=bytearray, init=False)
    """Joined as it comes: a peer may send two bytes at a time, and each piece kept would be an object."""
    _left: int = field(default=0, init=False)
    """Bytes to come of the body or chunk."""
    _head_bytes: int = field(default=0, init=False)
    _status: int = field(default=0, init=False)
    _headers: dict[str, str] = field(factory=dict, init=False)

    def feed(self, data: bytes) -> OutboundAnswer | None:
        """Take bytes in; give the answer once it is whole. Raises AnswerTooLarge, CannotConnect."""
        self.begun = True
        self._buffer += data
        while True:
            if self._part is _Part.HEAD:
                complete = self._read_head()
            elif self._part is _Part.REST:
                self._keep(len(self._buffer))
                complete = None
            elif self._part is _Part.BODY:
                complete = self._read_body()
            elif self._part is _Part.CHUNK_LINE:
                complete = self._read_chunk_line()
            elif self._part is _Part.CHUNK:
                complete = self._read_chunk()
            else:
                complete = self._read_trailer()
            if complete is None:
                return None
            if complete:
                self.persistent = self.persistent and not self._buffer
                return self._answer()

    def end(self) -> OutboundAnswer:
        """Give the answer that the end of the connection completes; raises CannotConnect if it does not."""
        if self._part is _Part.REST:
            return self._answer()
        raise CannotConnect("the connection broke within the answer")

    def _answer(self) -> OutboundAnswer:
        return OutboundAnswer(self._status, self._headers, bytes(self._body))

    # Each of these tells whether the answer is complete, or None if more bytes must come first.

    def _read_head(self) -> bool | None:
        end = self._buffer.find(b"\r\n\r\n")
        self._bound_head((len(self._buffer) if end < 0 else end) + self._head_bytes)
        if end < 0:
            return None
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        minor = self._read_lines(head)
        if 100 <= self._status < 200:
            if self._status == 101:
                raise CannotConnect("the server switched to a protocol nobody asked for")
            self._head_bytes += end
            return False
        return self._begin_body(minor)

    def _read_lines(self, head: bytes) -> int:
        """Read status line and fields, and give the minor version."""
        first, *lines = head.replace(b"\r\n ", b"  ").replace(b"\r\n\t", b"  ").split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise CannotConnect("this is no HTTP answer")
        self._status = int(match[2])
        headers: dict[str, str] = {}
        for line in lines:
            raw, colon, value = line.partition(b":")
            if not colon or _NAME.fullmatch(raw) is None or b"\n" in value or b"\0" in value:
                raise CannotConnect("a header of the answer is malformed")
            name, text = raw.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
            if headers.setdefault(name, text) != text and name in _FRAMING:
                raise CannotConnect("the answer is framed in two ways")
        self._headers = headers
        return int(match[1])

    def _begin_body(self, minor: int) -> bool:
        """See from the headers how the body is framed; tell whether there is none."""
        options = {each.strip().lower() for each in self._headers.get("connection", "").split(",")}
        self.persistent = minor == 1 and "close" not in options
        if self.is_head or self._status in _BODILESS:
            return True
        coding, length = self._headers.get("transfer-encoding"), self._headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked" or minor == 0 or length is not None:
                raise CannotConnect("the answer is framed in an unknown way")
            self._part = _Part.CHUNK_LINE
        elif length is not None:
            if _LENGTH.fullmatch(length.encode("latin-1")) is None:
                raise CannotConnect("the length of the answer is no number")
            self._left, self._part = int(length), _Part.BODY
            self._bound_body(self._left)
        else:
            self.persistent, self._part = False, _Part.REST
        return False

    def _read_body(self) -> bool | None:
        self._left -= self._keep(min(self._left, len(self._buffer)))
        return True if self._left == 0 else None

    def _read_chunk_line(self) -> bool | None:
        line = self._take_line(MAX_CHUNK_LINE)
        if line is None:
            return None
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise CannotConnect("a chunk of the answer is malformed")
        self._left = int(match[1], 16)
        self._bound_body(len(self._body) + self._left)
        self._part = _Part.CHUNK if self._left else _Part.TRAILERS
        return False

    def _read_chunk(self) -> bool | None:
        self._left -= self._keep(min(self._left, len(self._buffer)))
        if self._left or len(self._buffer) < 2:
            return None
        if self._buffer[:2] != b"\r\n":
            raise CannotConnect("a chunk of the answer is malformed")
        del self._buffer[:2]
        self._part = _Part.CHUNK_LINE
        return False

    def _read_trailer(self) -> bool | None:
        line = self._take_line(MAX_HEADER_BYTES)
        if line is None:
            return None
        self._head_bytes += len(line) + 2
        self._bound_head(self._head_bytes)
        return line == b""

    def _take_line(self, most: int) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > most or (end < 0 and len(self._buffer) > most):
            raise CannotConnect("a line of the answer is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _keep(self, count: int) -> int:
        """Move bytes from the buffer to the body."""
        if count:
            self._bound_body(len(self._body) + count)
            self._body += memoryview(self._buffer)[:count]
            del self._buffer[:count]
        return count

    def _bound_body(self, size: int) -> None:
        if size > self.max_bytes:
            raise AnswerTooLarge("the answer is too large")

    def _bound_head(self, size: int) -> None:
        if size > MAX_HEADER_BYTES:
            raise CannotConnect("the headers of the answer are too large")
