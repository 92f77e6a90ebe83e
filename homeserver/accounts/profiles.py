"""Profiles: name, avatar, time zone and whatever else users tell of themselves.

Source: client-server-api/_index.md, "Profiles", "m.profile_fields capability"; appendices.md, "Common
Namespaced Identifier Grammar"; security D14.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from homeserver.accounts.ports import JoinedRooms, RemoteProfiles
from homeserver.accounts.registration import search_text
from homeserver.background import run_in_background
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.write import Write
from protocol.canonical_json import JsonObject, JsonValue, decode_own, encode_lax
from protocol.errors import BadJson, Forbidden, InvalidParam, KeyTooLarge, NotFound, ProfileTooLarge
from protocol.identifiers import ServerName, UserID, localpart_of, server_of
from storage import accounts, profiles
from storage.accounts import AccountRow
from storage.database import Database, Transaction
from storage.feed import Kind, NewEntry
from storage.rows import Rows

DISPLAYNAME = "displayname"
AVATAR_URL = "avatar_url"
TIME_ZONE = "m.tz"
IN_ROOMS = (DISPLAYNAME, AVATAR_URL)
"""Fields that member events repeat."""
MAX_PROFILE_BYTES = 65_536
MAX_KEY_BYTES = 255
MAX_NAME = 256
MAX_AVATAR_URL = 1000
_KNOWN = frozenset({DISPLAYNAME, AVATAR_URL, TIME_ZONE})
_CUSTOM = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")
_TIME_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")


@frozen(eq=False)
class ProfileStores:
    """Where profiles are kept."""

    database: Database
    persister: Persister
    nids: Nids


@frozen(eq=False)
class Profiles:
    """What users of any server tell of themselves."""

    server_name: ServerName
    stores: ProfileStores
    rooms: JoinedRooms
    remote: RemoteProfiles

    async def get(self, user_id: UserID) -> JsonObject:
        """Give a user's profile; raises NotFound."""
        if server_of(user_id) != self.server_name:
            return await self.remote.query_profile(user_id, None)
        return await self.get_local(user_id)

    async def get_field(self, user_id: UserID, field: str) -> JsonValue:
        """Give one field of a user's profile; raises NotFound."""
        if server_of(user_id) != self.server_name:
            found = await self.remote.query_profile(user_id, field)
        else:
            found = await self.get_local(user_id)
        if field not in found:
            raise NotFound(f"{user_id} has no {field}")
        return found[field]

    async def get_local(self, user_id: UserID) -> JsonObject:
        """Give the profile of an active account here; raises NotFound."""
        found = await self.stores.database.read(_load, user_id)
        if found is None:
            raise NotFound(f"There is no profile of {user_id}")
        return {field: decode_own(value) for field, value in found[1].items()}

    async def set_field(self, user_id: UserID, field: str, value: JsonValue, *, now: int) -> None:
        """Set a field of a local user's profile, and tell the rooms they are joined in.

        Raises InvalidParam, KeyTooLarge, ProfileTooLarge, NotFound.
        """
        check_field(field, value)
        if field in IN_ROOMS and value in (None, ""):
            await self.delete_field(user_id, field, now=now)
            return
        account, fields = await self._load(user_id)
        raw = encode_lax(value)
        if fields.get(field) == raw:
            return
        after = {**fields, field: raw}
        size = sum(len(name.encode()) + len(held) for name, held in after.items())
        if size > MAX_PROFILE_BYTES:
            raise ProfileTooLarge(f"A profile may have at most {MAX_PROFILE_BYTES} bytes")
        rows = profiles.put_rows(account.user_nid, field, raw)
        await self._commit(account, field, value, rows, now)

    async def delete_field(self, user_id: UserID, field: str, *, now: int) -> None:
        """Remove a field of a local user's profile; raises NotFound for no such account."""
        account, fields = await self._load(user_id)
        if field in fields:
            rows = profiles.delete_rows(account.user_nid, field)
            await self._commit(account, field, None, rows, now)

    async def _load(self, user_id: UserID) -> tuple[AccountRow, Mapping[str, bytes]]:
        found = await self.stores.database.read(_load, user_id)
        if found is None:
            raise NotFound("There is no such account here")
        return found

    async def _commit(self, account: AccountRow, field: str, value: Any, fields: Rows, now: int) -> None:
        user_id = UserID(account.user_id)
        rows = [fields]
        if field == DISPLAYNAME:
            rows.append(accounts.search_rows(account.user_nid, search_text(localpart_of(user_id), value)))
        entry = NewEntry(Kind.PROFILE, user_nid=account.user_nid)
        await self.stores.persister.commit(Write(tuple(rows), (entry,)))
        if field in IN_ROOMS:
            work = self.rooms.profile_changed(user_id, now=now)
            run_in_background(work, f"telling rooms of the profile of {user_id}")


def check_field(field: str, value: JsonValue) -> None:
    """See that a field has a name and a value that profiles may have.

    Raises KeyTooLarge, InvalidParam or BadJson.
    """
    if not field:
        raise InvalidParam("The name of a profile field may not be empty")
    if len(field.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise KeyTooLarge(f"The name of a profile field may have at most {MAX_KEY_BYTES} bytes")
    if field not in _KNOWN and _CUSTOM.fullmatch(field) is None:
        raise InvalidParam("A profile field of one's own is named as in com.example.field, in lower case")
    bound = {DISPLAYNAME: MAX_NAME, AVATAR_URL: MAX_AVATAR_URL}.get(field)
    if bound is not None and value is not None:
        if not isinstance(value, str):
            raise BadJson(f"The field {field} must be a string")
        if len(value) > bound:
            raise InvalidParam(f"The field {field} may have at most {bound} characters")
    if field == TIME_ZONE and not (isinstance(value, str) and _TIME_ZONE.fullmatch(value)):
        raise InvalidParam("The field m.tz must be the name of a time zone")


def require_own(asker: UserID, user_id: UserID) -> None:
    """See that users change nobody's profile but their own; raises Forbidden."""
    if asker != user_id:
        raise Forbidden("This is not your profile")


def _load(tx: Transaction, user_id: str) -> tuple[AccountRow, Mapping[str, bytes]] | None:
    """Give an active account with its profile."""
    account = accounts.by_id(tx, user_id)
    if account is None or account.deactivated:
        return None
    return account, profiles.of_user(tx, account.user_nid)
