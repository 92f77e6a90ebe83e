"""EDUs for other servers that must arrive: queued in the same commit as what they tell of."""

from __future__ import annotations

from homeserver.events.nids import Nids
from protocol.identifiers import ServerName
from storage.feed import Kind, NewEntry
from storage.outbound_edus import queue_rows
from storage.rows import Rows


async def queued(nids: Nids, server: ServerName, edu: bytes, now: int) -> tuple[Rows, NewEntry]:
    """Give the row and the feed entry that queue an EDU (canonical JSON) for a server."""
    await nids.messages.ready(1)
    number = nids.messages.take()
    return queue_rows([(number, server, now, edu)]), NewEntry(Kind.OUTBOUND_EDU, ref=number, payload=server)
