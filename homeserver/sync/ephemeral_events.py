"""Ephemeral events of a room as bytes: receipts and typing.

A private receipt is shown to its owner alone, so public and own receipts are rendered apart.

Source: client-server-api/modules/receipts.md; modules/typing_notifications.md; protocol/spec.md, "Delivery".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from homeserver.sync.suppliers import Delivery, Receipt
from protocol.identifiers import UserID

PRIVATE = "m.read.private"
RECEIPT = "m.receipt"
TYPING = "m.typing"
DELIVERED = "org.plait.delivered"


def visible_receipts(receipts: Iterable[Receipt], reader: UserID) -> list[Receipt]:
    """Leave out what other users keep private."""
    return [each for each in receipts if each.receipt_type != PRIVATE or each.user_id == reader]


def receipts_bytes(receipts: Sequence[Receipt]) -> bytes:
    """Give one `m.receipt` event for receipts of a room, or several where one user has them by thread."""
    contents: list[dict[str, Any]] = []
    for each in receipts:
        _place(contents, each)
    return b",".join(
        b'{"type":"m.receipt","content":%b}' % orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        for content in contents
    )


def _place(contents: list[dict[str, Any]], receipt: Receipt) -> None:
    """Put a receipt into the first event in which its place is free."""
    value: dict[str, Any] = {"ts": receipt.ts}
    if receipt.thread_id is not None:
        value["thread_id"] = receipt.thread_id
    for content in contents:
        users = content.setdefault(receipt.event_id, {}).setdefault(receipt.receipt_type, {})
        if receipt.user_id not in users:
            users[receipt.user_id] = value
            return
    contents.append({receipt.event_id: {receipt.receipt_type: {receipt.user_id: value}}})


def typing_bytes(users: Iterable[UserID], ignored: frozenset[UserID]) -> bytes:
    """Give the `m.typing` event of a room."""
    shown = [user for user in users if user not in ignored]
    return b'{"type":"m.typing","content":{"user_ids":%b}}' % orjson.dumps(shown)


def delivered_bytes(marks: Iterable[Delivery]) -> bytes:
    """Give the event that tells how far what the reader said has come."""
    content: dict[str, dict[str, Any]] = {}
    for each in marks:
        content.setdefault(each.event_id, {})[each.user_id] = {"ts": each.ts}
    return b'{"type":"%b","content":%b}' % (
        DELIVERED.encode(),
        orjson.dumps(content, option=orjson.OPT_SORT_KEYS),
    )


def ephemeral_of(
    receipts: Sequence[Receipt],
    delivered: Sequence[Delivery],
    typing: Sequence[UserID] | None,
    ignored: frozenset[UserID],
) -> list[bytes]:
    """Give the ephemeral events of one room; `typing` None: unchanged."""
    events: list[bytes] = []
    if receipts:
        events.append(receipts_bytes(receipts))
    if delivered:
        events.append(delivered_bytes(delivered))
    if typing is not None:
        events.append(typing_bytes(typing, ignored))
    return events
