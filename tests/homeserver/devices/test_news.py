"""News of devices: who is told when a device gets another name or other keys, or is gone."""

from __future__ import annotations

import json
from typing import Any

from homeserver.accounts.devices import Devices
from homeserver.accounts.last_seen import LastSeen
from homeserver.devices.keys import Upload
from homeserver.devices.news import DeviceNews
from homeserver.sync.session import Session
from protocol.identifiers import DeviceID, ServerName, UserID
from storage import devices
from storage.feed import Kind
from tests.homeserver.devices.test_keys import identity
from tests.homeserver.ephemeral.helpers import STRANGER, Place, start_place
from tests.homeserver.events.helpers import ALICE, NOW
from tests.storage.helpers import PostgresCase, SqliteCase


class DeviceNewsContract:
    """Alice, who shares a room with a user of another server, and her devices."""

    database: Any
    assertEqual: Any
    assertNotIn: Any

    async def _start(self) -> tuple[Place, Devices, int]:
        place = await start_place(self.database)
        core = place.core
        news = DeviceNews(core.author.server_name, core.database, core.nids, core.clock)
        served = Devices(core.database, core.persister, core.nids, news, LastSeen(core.database))
        alice = await core.nids.user(ALICE)
        for device_id in ("PHONE", "DESK", "OLD"):
            await core.database.write(devices.ensure, alice, device_id, None, NOW)
        return place, served, alice

    async def _told(self) -> list[tuple[ServerName, dict[str, Any]]]:
        """Give what is queued, in order."""
        rows = await self.database.read(
            lambda tx: tx.all("SELECT server, edu FROM outbound_edus ORDER BY edu_nid")
        )
        return [(ServerName(row[0]), json.loads(bytes(row[1]))["content"]) for row in rows]

    async def test_a_new_name(self) -> None:
        """Local users learn a device's new name beside its keys, and other servers none (security: E9)."""
        place, served, alice = await self._start()
        keys = identity(device_id="DESK", keys={"ed25519:DESK": "abc"})
        session = Session(ALICE, alice, DeviceID("DESK"))
        await place.passing.keys.upload(session, Upload(keys, {}, {}))
        for name, unsigned in (("Alice's desk ☃", {"device_display_name": "Alice's desk ☃"}), ("", None)):
            since = place.core.feed.position
            await served.rename(alice, "DESK", name)
            self.assertEqual(await place.entries(Kind.DEVICE_LIST, since), 1)
            shown = (await place.passing.keys.query_all({ALICE: []}, 1))["device_keys"][ALICE]["DESK"]
            self.assertEqual(shown.pop("unsigned", None), unsigned)
            self.assertEqual(shown, keys)
        (_, content), *more = await self._told()
        self.assertEqual(more, [])
        await served.rename(alice, "DESK", "Alice's desk")
        told = (
            content,
            await place.passing.keys.query({ALICE: []}),
            await place.passing.keys.device_list(ALICE),
        )
        self.assertNotIn("Alice's", str(told))

    async def test_keys(self) -> None:
        """Every change but the end of a device comes with its keys: what is not told is taken to be gone."""
        place, served, alice = await self._start()
        keys = identity(device_id="DESK", keys={"ed25519:DESK": "abc"})
        session = Session(ALICE, alice, DeviceID("DESK"))
        await place.passing.keys.upload(session, Upload(keys, {}, {}))
        await place.passing.keys.changed(alice, DeviceID("DESK"))
        await place.passing.keys.changed(alice, DeviceID("PHONE"))
        await served.remove(alice, ["DESK"])
        told = [content.get("keys") for _, content in await self._told()]
        self.assertEqual(told, [keys, keys, None, None])

    async def test_strangers(self) -> None:
        """Who asks for the devices of users who do not exist leaves nothing behind."""
        place, served, _ = await self._start()
        nobody = UserID("@nobody:plait.test")
        self.assertEqual(await served.device_ids(nobody), [])
        self.assertEqual(await place.core.nids.known_users([nobody]), {})

    async def test_devices_that_are_gone(self) -> None:
        """Each device that is removed is told, under numbers that follow one another; others are not."""
        _, served, alice = await self._start()
        await served.remove(alice, ["DESK", "NEVER", "OLD"])
        await served.remove_all(alice, keep="PHONE")
        told = [content for _, content in await self._told()]
        self.assertEqual([each["device_id"] for each in told], ["DESK", "OLD"])
        self.assertEqual([each["stream_id"] for each in told], [1, 2])
        self.assertEqual([each["prev_id"] for each in told], [[], [1]])
        self.assertEqual([each["deleted"] for each in told], [True, True])

    async def test_who_shares_nothing(self) -> None:
        """Nobody elsewhere is told of the devices of a user who shares no room with them."""
        place, served, _ = await self._start()
        stranger = await place.core.nids.user(STRANGER)
        await place.core.database.write(devices.ensure, stranger, "PHONE", None, NOW)
        await served.remove(stranger, ["PHONE"])
        self.assertEqual(await self._told(), [])


class SqliteDeviceNewsTest(DeviceNewsContract, SqliteCase):
    """On SQLite."""


class PostgresDeviceNewsTest(DeviceNewsContract, PostgresCase):
    """On PostgreSQL."""
