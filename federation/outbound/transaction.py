"""A transaction as it goes over the wire: bytes joined from events and EDUs, never encoded twice.

Source: server-server-api.md, "Transactions"; data/api/server-server/transactions.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from protocol.canonical_json import decode, encode
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import ServerName
from protocol.limits import MAX_EDUS, MAX_PDUS

__all__ = ["MAX_EDUS", "MAX_PDUS", "OutgoingTransaction", "is_sendable", "transaction_body"]


@frozen
class OutgoingTransaction:
    """A transaction under way: a retry repeats ID and body."""

    txn_id: str
    body: bytes


def transaction_body(origin: ServerName, now: int, pdus: Sequence[bytes], edus: Sequence[bytes]) -> bytes:
    """Give the canonical JSON of a transaction of events and EDUs, each canonical JSON already."""
    return b'{"edus":[%b],"origin":%b,"origin_server_ts":%d,"pdus":[%b]}' % (
        b",".join(edus),
        encode(origin),
        now,
        b",".join(pdus),
    )


def is_sendable(event: Event) -> bool:
    """Tell whether an event may stand in a transaction: strict canonical JSON, whatever its room version.

    Events of old rooms with floats or huge integers are served where asked for, but never sent among
    others, for a receiver would refuse the whole transaction.
    """
    if event.version.strict_json:
        return True
    try:
        decode(event.raw, max_depth=512)
    except MatrixError:
        return False
    return True
