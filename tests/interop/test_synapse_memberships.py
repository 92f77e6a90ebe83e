"""Users of a Plait and of a Synapse are let into each other's rooms and put out; their devices meet."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.interop import devices, memberships
from tests.interop.network import NETWORKS, Kind, Node


class BesideSynapseTests(TestCase):
    """Plait and Synapse, each on SQLite; every scenario in both directions."""

    timeout = 200

    async def test_knocks(self) -> None:
        """Knocks on rooms of both; Synapse takes none of its own back."""
        ours, theirs = await self._nodes()
        await memberships.knock(ours, theirs, "7", take_back=False)
        await memberships.knock(theirs, ours, "12", take_back=True)

    async def test_invites(self) -> None:
        """Invites are taken back, refused and accepted."""
        for host, guest in await self._both_ways():
            await memberships.invite_again_and_again(host, guest, "12")

    async def test_restricted_joins(self) -> None:
        """A room opens to the members of another."""
        for host, guest in await self._both_ways():
            await memberships.join_by_membership_elsewhere(host, guest, "10")

    async def test_moderation(self) -> None:
        """A moderator puts users of the other server out."""
        for host, guest in await self._both_ways():
            await memberships.moderate(host, guest, "11")

    async def test_upgrades(self) -> None:
        """Rooms move to version 12 with those of the other server."""
        for host, guest in await self._both_ways():
            await memberships.upgrade(host, guest, "11")

    async def test_bans_while_apart(self) -> None:
        """A banned user is not heard, though her server did not know."""
        for host, guest in await self._both_ways():
            await memberships.ban_while_apart(host, guest, "12")

    async def test_coming_back(self) -> None:
        """Who comes back finds the room and what was missed."""
        for host, guest in await self._both_ways():
            await memberships.leave_and_come_back(host, guest, "12")

    async def test_device_lists(self) -> None:
        """Each server knows the devices of the other's users."""
        for host, guest in await self._both_ways():
            await devices.follow_devices(host, guest, "10")

    async def test_messages_between_devices(self) -> None:
        """They arrive."""
        for host, guest in await self._both_ways():
            await devices.write_to_devices(host, guest)

    async def _both_ways(self) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
        ours, theirs = await self._nodes()
        return (ours, theirs), (theirs, ours)

    async def _nodes(self) -> tuple[Node, Node]:
        network = await NETWORKS.get((Kind.PLAIT, Kind.SYNAPSE), postgres=False)
        return network.nodes[0], network.nodes[1]
