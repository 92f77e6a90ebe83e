"""Asking policy servers to sign events.

Source: server-server-api.md, "Asking for a Policy Server signature on an event"; security C10.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from federation.failures import MAX_TOLD, BadAnswer, Refused
from federation.requests import ServerRequest, ServerRequests
from protocol.errors import BadJson, Forbidden, LimitExceeded, MatrixError, NotFound, NotJson, Unrecognized
from protocol.events import Event
from protocol.identifiers import ServerName
from protocol.policy import POLICY_KEY_ID

SIGN = "/_matrix/policy/v1/sign"
SECONDS = 10
"""How long an answer is waited for."""

_TOLD: Mapping[str, type[MatrixError]] = {
    "M_FORBIDDEN": Forbidden,
    "M_BAD_JSON": BadJson,
    "M_NOT_JSON": NotJson,
    "M_NOT_FOUND": NotFound,
    "M_UNRECOGNIZED": Unrecognized,
}


@frozen
class PolicyRequests:
    """Asks policy servers."""

    requests: ServerRequests

    async def signature(self, server: ServerName, event: Event, *, insist: bool) -> str:
        """Give a policy server's signature on an event, unchecked.

        `insist` asks even a server that is left in peace. Raises a refusal in the policy server's own words,
        and what `failures` has.
        """
        request = ServerRequest(server, "POST", SIGN, event.raw, seconds=SECONDS, insist=insist)
        try:
            answer = await self.requests.signed(request)
        except Refused as refused:
            raise _refusal(refused) from None
        of_server = answer.get(server)
        signature = of_server.get(POLICY_KEY_ID) if isinstance(of_server, dict) else None
        if not isinstance(signature, str):
            raise BadAnswer(server, "no signature of a policy server")
        return signature


def _refusal(refused: Refused) -> MatrixError:
    """Give a refusal as its sender is told: with the policy server's own code and sentence, if it is one."""
    told = refused.remote.get("error")
    sentence = told if isinstance(told, str) else "The room's policy server refuses the event"
    plain = "".join(char for char in sentence[:MAX_TOLD] if char.isprintable())
    if refused.remote_errcode == "M_LIMIT_EXCEEDED":
        wait = refused.remote.get("retry_after_ms")
        return LimitExceeded(wait if isinstance(wait, int) and wait > 0 else 1_000, plain)
    kind = _TOLD.get(refused.remote_errcode)
    return refused if kind is None else kind(plain)
