"""The rooms made for pairs of users: each is begun once, whichever worker is asked.

They form a chain: a claim for the first, and one for whatever follows a room that is their conversation no
more. The claim is a transaction ID of nobody's device, taken by the commit that makes the room.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.clock import Clock
from homeserver.events.nids import Nids
from homeserver.feed.tail import Feed
from protocol.identifiers import RoomID, UserID
from storage import transactions
from storage.database import Database
from storage.transactions import TransactionKey

NO_DEVICE = ""


@frozen(eq=False)
class PairRooms:
    """Knows which rooms were begun for pairs, lately at least: claims end as transaction IDs do."""

    database: Database
    nids: Nids
    feed: Feed
    clock: Clock

    async def claim(self, pair: Sequence[UserID], previous: RoomID | None) -> TransactionKey:
        """Give the claim for the room of a sorted pair that follows `previous`; None: the first."""
        owner = await self.nids.user(pair[0])
        return TransactionKey.of(owner, NO_DEVICE, ("conversation", *pair), previous or "")

    async def begun(self, claim: TransactionKey) -> RoomID | None:
        """Give the room that was made by a claim."""
        used = await self.database.read(transactions.find, claim)
        if used is None or used.room_nid is None:
            return None
        return (await self.nids.room_of(used.room_nid)).room_id

    async def wait(self, seconds: float) -> None:
        """Let others go on, and see what they have done."""
        await self.clock.sleep(seconds)
        await self.feed.catch_up()
