"""Plait and a Synapse, a server nobody here wrote, share rooms of four versions, in both directions."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.interop import conversations
from tests.interop.network import NETWORKS, Kind, Node


class SynapseContract:
    """The scenarios, on whatever database a subclass chooses."""

    postgres: bool
    timeout = 300

    async def test_talk_in_our_room_version_6(self) -> None:
        """A Synapse user joins our room of version 6: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._ours_first(), "6")

    async def test_talk_in_our_room_version_10(self) -> None:
        """A Synapse user joins our room of version 10: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._ours_first(), "10")

    async def test_talk_in_our_room_version_11(self) -> None:
        """A Synapse user joins our room of version 11: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._ours_first(), "11")

    async def test_talk_in_our_room_version_12(self) -> None:
        """A Synapse user joins our room of version 12: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._ours_first(), "12")

    async def test_talk_in_their_room_version_6(self) -> None:
        """We join a Synapse room of version 6: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._theirs_first(), "6")

    async def test_talk_in_their_room_version_10(self) -> None:
        """We join a Synapse room of version 10: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._theirs_first(), "10")

    async def test_talk_in_their_room_version_11(self) -> None:
        """We join a Synapse room of version 11: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._theirs_first(), "11")

    async def test_talk_in_their_room_version_12(self) -> None:
        """We join a Synapse room of version 12: messages, redactions, receipts, typing both ways."""
        await conversations.talk(*await self._theirs_first(), "12")

    async def test_synapse_reads_our_old_messages(self) -> None:
        """A Synapse user pages back through 200 messages from before its server joined our room."""
        await conversations.read_old_messages(*await self._ours_first(), "12")

    async def test_we_read_synapses_old_messages(self) -> None:
        """Our user pages back through 200 messages from before we joined a Synapse room."""
        await conversations.read_old_messages(*await self._theirs_first(), "11")

    async def test_synapse_finds_our_published_rooms(self) -> None:
        """A Synapse user looks into our directory: words and pages."""
        await conversations.find_published_rooms(*await self._ours_first(), "12")

    async def test_we_find_synapses_published_rooms(self) -> None:
        """Our user looks into a Synapse's directory: words and pages."""
        await conversations.find_published_rooms(*await self._theirs_first(), "11")

    async def test_partition_of_our_room_heals(self) -> None:
        """After a partition both have all messages and the same state of our room (version 12)."""
        await conversations.part_and_meet(*await self._ours_first(), "12")

    async def test_partition_of_their_room_heals(self) -> None:
        """After a partition both have all messages and the same state of Synapse's room (version 10)."""
        await conversations.part_and_meet(*await self._theirs_first(), "10")

    async def _ours_first(self) -> tuple[Node, Node]:
        """Give Plait as host, Synapse as guest."""
        network = await NETWORKS.get((Kind.PLAIT, Kind.SYNAPSE), postgres=self.postgres)
        return network.nodes[0], network.nodes[1]

    async def _theirs_first(self) -> tuple[Node, Node]:
        """Give Synapse as host, Plait as guest."""
        ours, theirs = await self._ours_first()
        return theirs, ours


class SynapseOnSqliteTests(SynapseContract, TestCase):
    """Plait and Synapse, each on SQLite."""

    postgres = False


class SynapseOnPostgresTests(SynapseContract, TestCase):
    """Plait and Synapse, each on PostgreSQL."""

    postgres = True
