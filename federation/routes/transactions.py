"""Transactions of other servers.

Source: server-server-api.md, "Transactions".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from federation.inbound.transactions import InboundTransactions, Transaction
from homeserver.http.calls import Call, Json
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import InvalidParam
from protocol.limits import MAX_EDUS, MAX_EVENT_BYTES, MAX_ID_BYTES, MAX_PDUS

MAX_BODY = (MAX_PDUS + MAX_EDUS + 1) * MAX_EVENT_BYTES
"""Bytes of a transaction: PDUs and EDUs at their largest, or who sends as many would be stuck with them."""


@frozen(eq=False)
class TransactionRoutes:
    """Takes transactions."""

    transactions: InboundTransactions

    async def send(self, call: Call[dict[str, Any]]) -> Json:
        """Take a transaction in, and tell what became of each PDU."""
        txn_id = call.path["txn_id"]
        if len(txn_id) > MAX_ID_BYTES or "\0" in txn_id:
            raise InvalidParam("The transaction ID is too long, or no text")
        transaction = Transaction.of(call.origin, txn_id, call.body)
        return Json(await self.transactions.take(transaction, call.now))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        path = "/_matrix/federation/v1/send/{txn_id}"
        return (Route("PUT", path, self.send, dict, Auth.SERVER, RateClass.FEDERATION, MAX_BODY),)
