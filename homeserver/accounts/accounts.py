"""The account itself: whether there is one, its password, its state, its end.

Source: client-server-api/_index.md, "Account management", "Account moderation"; security L4.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.accounts.devices import Devices
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.ports import JoinedRooms
from homeserver.background import run_in_background
from homeserver.events.persister import Persister
from homeserver.events.write import Write
from protocol.errors import NotFound
from protocol.identifiers import DeviceID, UserID
from storage import account_data, accounts, profiles
from storage.accounts import AccountRow
from storage.database import Database
from storage.feed import Kind, NewEntry


@frozen(eq=False)
class Accounts:
    """Accounts of this server."""

    database: Database
    persister: Persister
    passwords: Passwords
    devices: Devices
    rooms: JoinedRooms

    async def find(self, user_id: UserID) -> AccountRow | None:
        """Look an account up, whatever its state; None if there is none."""
        return await self.database.read(accounts.by_id, user_id)

    async def get(self, user_id: UserID) -> AccountRow:
        """Look an account up; raises NotFound."""
        found = await self.find(user_id)
        if found is None:
            raise NotFound("There is no such account here")
        return found

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an active account."""
        found = await self.find(user_id)
        return found is not None and not found.deactivated

    async def set_password(
        self, account: AccountRow, password: str, *, keep: DeviceID | None, logout: bool
    ) -> None:
        """Change a password; with `logout` all devices but `keep` are gone.

        Raises WeakPassword or InvalidParam for a password that will not do.
        """
        self.passwords.check_policy(password)
        hashed = await self.passwords.hash(password)
        await self.persister.commit(Write((accounts.password_rows(account.user_nid, hashed),)))
        if logout:
            await self.devices.remove_all(account.user_nid, keep=keep)

    async def set_flag(self, account: AccountRow, flag: str, value: bool) -> None:
        """Suspend, lock, shadow-ban or promote an account, or take it back."""
        entry = NewEntry(Kind.SESSION, user_nid=account.user_nid)
        await self.persister.commit(Write((accounts.flag_rows(account.user_nid, flag, value),), (entry,)))

    async def deactivate(self, account: AccountRow, *, erase: bool, now: int) -> None:
        """End an account for good: password, sessions, devices, profile and account data go at once.

        It leaves its rooms afterwards, which may take a while.
        """
        nid = account.user_nid
        rows = [
            accounts.deactivation_rows(nid, erase=erase),
            profiles.delete_all_rows(nid),
            account_data.delete_all_rows(nid),
        ]
        entry = NewEntry(Kind.PROFILE, user_nid=nid)
        await self.devices.remove_all(nid, rows=tuple(rows), entries=(entry,))
        user_id = UserID(account.user_id)
        run_in_background(self.rooms.leave_all(user_id, now=now), f"leaving the rooms of {user_id}")
