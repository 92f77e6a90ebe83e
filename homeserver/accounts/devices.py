"""Devices of local users: listed, named, removed; with a device go its session, its keys and its messages.

Source: client-server-api/modules/device_management.md; security L5.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import frozen

from homeserver.accounts.last_seen import LastSeen
from homeserver.accounts.sessions import check_display_name
from homeserver.devices.news import DeviceChange, DeviceNews
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.write import Write
from protocol.errors import NotFound
from protocol.identifiers import DeviceID, UserID
from storage import devices, sessions
from storage.database import Database
from storage.devices import DeviceRow
from storage.feed import Kind, NewEntry
from storage.rows import Rows


@frozen(eq=False)
class Devices:
    """The devices of local users."""

    database: Database
    persister: Persister
    nids: Nids
    news: DeviceNews
    last_seen: LastSeen

    async def of_user(self, user_nid: int) -> Sequence[DeviceRow]:
        """Give all devices of a user."""
        found = await self.database.read(devices.of_user, user_nid)
        return [self._with_latest(user_nid, row) for row in found]

    async def one(self, user_nid: int, device_id: str) -> DeviceRow:
        """Give a device; raises NotFound."""
        row = await self.database.read(devices.one, user_nid, device_id)
        if row is None:
            raise NotFound("There is no such device")
        return self._with_latest(user_nid, row)

    async def device_ids(self, user_id: UserID) -> Sequence[DeviceID]:
        """Give the IDs of a local user's devices; none for a user who does not exist."""
        user_nid = (await self.nids.known_users([user_id])).get(user_id)
        rows = () if user_nid is None else await self.database.read(devices.of_user, user_nid)
        return [DeviceID(row.device_id) for row in rows]

    async def rename(self, user_nid: int, device_id: str, display_name: str | None) -> None:
        """Name a device; raises NotFound or InvalidParam."""
        check_display_name(display_name)
        await self.one(user_nid, device_id)
        # Others here see the name beside the keys, so the device list has changed; other servers do not.
        entry = NewEntry(Kind.DEVICE_LIST, user_nid=user_nid)
        rows = devices.rename_rows(user_nid, device_id, display_name)
        await self.persister.commit(Write((rows,), (entry,)))

    async def remove(self, user_nid: int, device_ids: Collection[str]) -> None:
        """Remove devices; those that are not there do not matter."""
        held = {row.device_id for row in await self.database.read(devices.of_user, user_nid)}
        going = [device_id for device_id in dict.fromkeys(device_ids) if device_id in held]
        if going:
            await self._remove(user_nid, going, (), ())

    async def remove_all(
        self,
        user_nid: int,
        *,
        keep: str | None = None,
        rows: tuple[Rows, ...] = (),
        entries: tuple[NewEntry, ...] = (),
    ) -> None:
        """Remove all devices but `keep`, together with what else is to be written."""
        held = await self.database.read(devices.of_user, user_nid)
        going = [row.device_id for row in held if row.device_id != keep]
        await self._remove(user_nid, going, rows, entries)

    async def _remove(
        self, user_nid: int, going: Sequence[str], rows: tuple[Rows, ...], entries: tuple[NewEntry, ...]
    ) -> None:
        open_sessions = await self.database.read(sessions.of_user, user_nid)
        ended = [session.session_nid for session in open_sessions if session.device_id in going]
        changes = [DeviceChange(device_id, deleted=True) for device_id in going]
        news_rows, news_entries = await self.news.of(user_nid, changes)
        write = Write(
            (
                *rows,
                *devices.removal_rows(user_nid, going),
                *sessions.end_rows(ended),
                *news_rows,
            ),
            (
                *entries,
                # Of a session that begins at this moment nobody knows: all workers forget all tokens.
                NewEntry(Kind.SESSION, user_nid=user_nid),
                *news_entries,
            ),
        )
        await self.persister.commit(write)

    def _with_latest(self, user_nid: int, row: DeviceRow) -> DeviceRow:
        """Give a device with a sighting that is not yet written."""
        seen = self.last_seen.latest(user_nid, row.device_id)
        if seen is None:
            return row
        return row._replace(last_seen=seen.ts, last_ip=seen.ip, user_agent=seen.user_agent)
