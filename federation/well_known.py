"""Delegation by `/.well-known/matrix/server`: asked rarely, remembered as long as it says.

A bad answer is not an error: it means that there is no delegation. A good answer that ran out is kept in
use for a while when asking again fails.

Source: server-server-api.md, "Resolving server names", step 3.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from attrs import define, evolve, field, frozen

from federation.server_names import read_server_name
from homeserver.clock import Clock
from homeserver.http.agent import Limits, OutboundAgent, request_for_url
from homeserver.http.answer_reader import OutboundAnswer
from homeserver.http.outbound_errors import OutboundError
from homeserver.single_flight import SingleFlight
from protocol.canonical_json import decode_client
from protocol.errors import MatrixError
from protocol.identifiers import ServerName

LIMITS = Limits(max_bytes=64 * 1024, seconds=15, redirects=5)
SECOND = 1000
HOUR = 3600 * SECOND
DEFAULT_LIFE = 24 * HOUR
MAX_LIFE = 48 * HOUR
MIN_LIFE = 5 * 60 * SECOND
FIRST_ERROR_LIFE = 60 * SECOND
MAX_ERROR_LIFE = HOUR
GRACE = 48 * HOUR
"""How long a good answer serves after its end while asking again fails."""
MAX_KNOWN = 10_000

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_NO_STORE = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b", re.IGNORECASE)


@frozen
class _Known:
    """What a host delegates to (None: nothing), until when that holds, and failures in a row. Times in ms."""

    delegate: ServerName | None
    until: int
    good_until: int = 0
    failures: int = 0


@define
class WellKnown:
    """The delegations of all hosts asked."""

    agent: OutboundAgent
    clock: Clock
    _known: OrderedDict[str, _Known] = field(factory=OrderedDict, init=False)
    _asking: SingleFlight[str, _Known] = field(factory=SingleFlight, init=False)

    async def delegate(self, host: str) -> ServerName | None:
        """Give the server name that `host` delegates to, or None."""
        known = self._known.get(host)
        if known is None or known.until <= self.clock.now_ms():
            known = await self._asking.run(host, lambda: self._refresh(host))
        return known.delegate

    async def _refresh(self, host: str) -> _Known:
        """Ask, and remember the outcome."""
        found = await self._ask(host)
        now = self.clock.now_ms()
        known = self._known.get(host)
        if found is not None:
            new = found
        elif known is not None and known.delegate is not None and known.good_until + GRACE > now:
            new = evolve(known, until=now + _error_life(known.failures), failures=known.failures + 1)
        else:
            failures = 0 if known is None else known.failures
            new = _Known(None, now + _error_life(failures), failures=failures + 1)
        self._known[host] = new
        self._known.move_to_end(host)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return new

    async def _ask(self, host: str) -> _Known | None:
        """Fetch the document; None for any failure."""
        url = f"https://{host}/.well-known/matrix/server"
        try:
            answer = await self.agent.request(request_for_url("GET", url, {}, LIMITS))
        except OutboundError:
            return None
        delegate = _delegate_in(answer)
        if delegate is None:
            return None
        until = self.clock.now_ms() + _life(answer.headers.get("cache-control", ""))
        return _Known(delegate, until, good_until=until)


def _delegate_in(answer: OutboundAnswer) -> ServerName | None:
    """Read `m.server`, or give None if the answer is not a valid document."""
    if answer.status != 200:
        return None
    try:
        document = decode_client(answer.body)
        return read_server_name(document.get("m.server")) if isinstance(document, dict) else None
    except MatrixError:
        return None


def _life(cache_control: str) -> int:
    """Give how long an answer holds (ms), by its Cache-Control header."""
    if _NO_STORE.search(cache_control):
        return MIN_LIFE
    match = _MAX_AGE.search(cache_control)
    life = DEFAULT_LIFE if match is None else int(match.group(1)) * SECOND
    return max(MIN_LIFE, min(life, MAX_LIFE))


def _error_life(failures: int) -> int:
    """Give how long a failure holds (ms): longer after each one before it."""
    return min(FIRST_ERROR_LIFE << min(failures, 10), MAX_ERROR_LIFE)
