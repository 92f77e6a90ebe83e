"""matrix-nio, a client library nobody here wrote, is used unmodified against a Plait."""

from __future__ import annotations

import importlib.util
import os
import sys

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase

from tests.interop.network import NETWORKS, Kind
from tests.interop.processes import PROJECT


class NioContract:
    """The scenarios, on whatever database a subclass chooses."""

    postgres: bool
    timeout = 240

    async def test_accounts(self) -> None:
        """nio registers, logs out, logs in, and manages its devices."""
        await self._play("accounts")

    async def test_rooms(self) -> None:
        """nio creates rooms, invites, joins, reads state and members, leaves."""
        await self._play("rooms")

    async def test_conversation(self) -> None:
        """nio sends, syncs each message once and in order, and pages back through history."""
        await self._play("conversation")

    async def test_redaction(self) -> None:
        """nio redacts a message, and others receive the redaction and the emptied event."""
        await self._play("redaction")

    async def test_ephemera(self) -> None:
        """nio sends and receives typing, receipts and read markers."""
        await self._play("ephemera")

    async def test_profile(self) -> None:
        """nio sets name, avatar and presence, and rooms show the new name."""
        await self._play("profile")

    async def _play(self, scenario: str) -> None:
        """Play a scenario in a process of its own; fail with its output."""
        if importlib.util.find_spec("nio") is None:
            raise SkipTest("matrix-nio is not installed")
        network = await NETWORKS.get((Kind.PLAIT,), postgres=self.postgres)
        url = network.nodes[0].server.place.client_url
        out, err, code = await getProcessOutputAndValue(
            sys.executable,
            ["-m", "tests.interop.nio_scenarios", scenario, url],
            env=os.environ,
            path=str(PROJECT),
        )
        if code:
            raise AssertionError((out + err).decode("utf-8", "replace"))


class NioOnSqliteTests(NioContract, TestCase):
    """nio against Plait on SQLite."""

    postgres = False


class NioOnPostgresTests(NioContract, TestCase):
    """nio against Plait on PostgreSQL."""

    postgres = True
