"""Policy servers of rooms: which counts now, and what it says of an event.

Whoever sends to a room that uses one asks it first; what comes without its signature is asked about once.
It is asked outside of the room's queue and within seconds, so one that is slow or gone delays the event in
question alone. A room without one costs one look at its head.

Source: server-server-api.md, "Policy Servers".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence, Set
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.logger import Logger

from homeserver.events.event_store import Events
from homeserver.events.heads import Heads
from homeserver.events.stored import Status
from homeserver.single_flight import SingleFlight
from protocol.errors import BadGateway, EventTooLarge, GatewayTimeout, MatrixError, NotFound, Unavailable
from protocol.events import Event
from protocol.identifiers import EventID, ServerName
from protocol.policy import POLICY, PolicyServer, needs_policy

MAX_ASKED_AT_ONCE = 10
"""Events that one policy server is asked about at a time."""

MAX_WAITING = 1_000
"""Events that may wait to be asked about."""

MAX_REMEMBERED = 10_000
"""Answers that are kept, so that an event that waits for its past is not asked about again."""

_KEYS = (POLICY,)

log = Logger()


class AsksPolicyServers(Protocol):
    """Asks policy servers (`federation.policy`)."""

    async def signature(self, server: ServerName, event: Event, *, insist: bool) -> str:
        """Give a policy server's signature on an event, unchecked; raises MatrixError as a client may see it.

        `insist` asks even a server that has not answered of late.
        """
        ...


@define(eq=False)
class PolicyServers:
    """Knows the rooms' policy servers and asks them."""

    heads: Heads
    stored: Events
    asking: AsksPolicyServers
    own_name: ServerName
    _answers: OrderedDict[tuple[EventID, PolicyServer], str | None] = field(factory=OrderedDict, init=False)
    """Signatures without their events, which may be large; None: refused."""
    _flights: SingleFlight[tuple[EventID, PolicyServer], Event | None] = field(
        factory=SingleFlight, init=False
    )
    _slots: dict[ServerName, DeferredSemaphore] = field(factory=dict, init=False)

    def has_none(self, room_nid: int) -> bool:
        """Tell whether memory knows that a room names no policy server, as nearly all rooms do."""
        head = self.heads.peek(room_nid)
        return head is not None and head.cached.known(_KEYS) == {}

    async def of(self, room_nid: int) -> PolicyServer | None:
        """Give the policy server that a room uses: it is named in its state and has a member in it.

        Raises NotFound if this server has no part in the room.
        """
        head = self.heads.peek(room_nid)
        if head is None:
            head = await self.heads.get(room_nid)
        state = head.cached.known(_KEYS)
        if state is None:
            state = await head.cached.get(_KEYS)
        if not state:
            return None
        policy = PolicyServer.of(state[POLICY].event.content)
        return policy if policy is not None and head.servers.get(policy.name) else None

    async def sign(self, policy: PolicyServer, event: Event) -> Event:
        """Have an event of this server signed before it is sent.

        Raises MatrixError if the policy server refuses it, gives no good signature, or does not answer.
        """
        if policy.name == self.own_name:
            raise NotFound("This server is not a policy server, although the room names it as one")
        return await self._signed(policy, event, insist=True)

    async def weigh(self, room_nid: int, batch: Sequence[Event]) -> tuple[Sequence[Event], Set[EventID]]:
        """Give received events with the signatures that could be had, and those not recommended."""
        policy = await self.of(room_nid)
        if policy is None:
            return batch, frozenset()
        lacking = [event for event in batch if not _is_recommended(policy, event)]
        known = await self.stored.by_id(room_nid, [event.event_id for event in lacking])
        wanted = [
            event
            for event in lacking
            if event.event_id not in known or known[event.event_id].status is Status.OUTLIER
        ]
        answers = await gatherResults(
            [Deferred.fromCoroutine(self._asked(policy, event)) for event in wanted], consumeErrors=True
        )
        signed = {answer.event_id: answer for answer in answers if answer is not None}
        refused = {event.event_id for event in wanted if event.event_id not in signed}
        return [signed.get(event.event_id, event) for event in batch], refused

    async def _asked(self, policy: PolicyServer, event: Event) -> Event | None:
        """Give an event with the policy server's signature; None if that is not to be had."""
        key = (event.event_id, policy)
        if key not in self._answers:
            return await self._flights.run(key, lambda: self._ask(policy, event))
        signature = self._answers[key]
        try:
            return None if signature is None else policy.signed(event, signature)
        except EventTooLarge:  # it comes with more of other signatures than before
            return None

    async def _ask(self, policy: PolicyServer, event: Event) -> Event | None:
        if policy.name == self.own_name:
            return None
        answer = None
        try:
            answer = await self._signed(policy, event, insist=False)
        except MatrixError as error:
            log.info("no recommendation of {event}: {error}", event=event.event_id, error=error.error)
            if isinstance(error, (BadGateway, GatewayTimeout, Unavailable)):
                return None
        self._answers[event.event_id, policy] = None if answer is None else policy.signature_on(answer)
        if len(self._answers) > MAX_REMEMBERED:
            self._answers.popitem(last=False)
        return answer

    async def _signed(self, policy: PolicyServer, event: Event, *, insist: bool) -> Event:
        """Ask for a signature, as soon as the policy server has a slot, and check it."""
        slots = self._slots.setdefault(policy.name, DeferredSemaphore(MAX_ASKED_AT_ONCE))
        if len(slots.waiting) >= MAX_WAITING:
            raise Unavailable("Too many events wait for the room's policy server")
        await slots.acquire()
        try:
            return policy.signed(event, await self.asking.signature(policy.name, event, insist=insist))
        finally:
            slots.release()
            if slots.tokens == slots.limit:
                self._slots.pop(policy.name, None)


def _is_recommended(policy: PolicyServer, event: Event) -> bool:
    return not needs_policy(event.type, event.state_key) or policy.recommends(event)
