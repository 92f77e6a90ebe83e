"""Asking servers in a room for a template: whom, in which order, and what their refusals mean."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import SystemRandom

from federation.failures import Refused, passed_on
from federation.handshakes import Handshakes
from federation.templates import Template, Wish
from homeserver.clock import Clock
from homeserver.staggered import NoneGood, first_good
from protocol.errors import MatrixError, NotFound
from protocol.identifiers import ServerName

MAX_VIA = 10
"""Servers asked."""
STAGGER = 2.0
"""Seconds before the next server is asked beside those that have not answered."""


class TemplateRefused(Exception):
    """No server gave a template; `reason` is what the most telling of them answered."""

    def __init__(self, reason: MatrixError) -> None:
        """Keep the reason."""
        super().__init__(reason.error)
        self.reason = reason


class SendRefused(Exception):
    """A server gave a template, but what followed failed."""

    def __init__(self, server: ServerName, reason: MatrixError) -> None:
        """Keep the server and the reason."""
        super().__init__(reason.error)
        self.server = server
        self.reason = reason


def in_order(via: Sequence[ServerName], own_name: ServerName, random: SystemRandom) -> list[ServerName]:
    """Give other servers once each: the one named first, for it is likely the best, the rest shuffled."""
    others = [server for server in dict.fromkeys(via) if server != own_name]
    first, rest = others[:1], others[1:]
    random.shuffle(rest)
    return [*first, *rest][:MAX_VIA]


async def make_through(
    handshakes: Handshakes, clock: Clock, servers: Sequence[ServerName], wish: Wish
) -> Template:
    """Ask servers for a template, each a little after the one before; raises TemplateRefused."""
    attempts = [partial(handshakes.make, server, wish) for server in servers]
    try:
        return await first_good(clock, attempts, STAGGER, expected=MatrixError)
    except NoneGood as none:
        raise TemplateRefused(_most_telling(none.failures)) from none


def _most_telling(failures: Sequence[Exception]) -> MatrixError:
    """Give the last refusal, which tells more than silence; else the last failure."""
    told = [failure for failure in failures if isinstance(failure, MatrixError)]
    refusals = [failure for failure in told if isinstance(failure, Refused)]
    return [NotFound("there is nobody to ask"), *told, *refusals][-1]


def told(error: MatrixError) -> MatrixError:
    """Give the error as a client may see it."""
    return passed_on(error) if isinstance(error, Refused) else error
