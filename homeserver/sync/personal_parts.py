"""The parts of a delta that are no room: account data, to-device messages, device lists, key counts.

Source: client-server-api/_index.md, "Syncing"; modules/send_to_device.md; modules/end_to_end_encryption.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from attrs import frozen

from homeserver.sync.device_lists import NO_DEVICE_LISTS, DeviceListChanges
from homeserver.sync.filters import EventFilter
from homeserver.sync.recipient import Recipient
from homeserver.sync.rooms import Shown
from homeserver.sync.session import Session
from homeserver.sync.sources import Personal
from homeserver.sync.suppliers import AccountData, AccountDatum, DeviceKeys, ToDevice
from storage.feed import Kind

MAX_TO_DEVICE = 100
"""To-device messages in one answer."""


@frozen(eq=False)
class PersonalParts:
    """Gives the parts of one user or device."""

    _account_data: AccountData
    _to_device: ToDevice
    _keys: DeviceKeys
    _device_lists: DeviceListChanges

    async def account_data(self, session: Session, personal: Personal | None) -> Sequence[AccountDatum]:
        """Give what changed of the account data; all of it for a first sync (`personal` None)."""
        if personal is None:
            return await self._account_data.everything(session.user_nid)
        refs = {
            entry.ref for entry in personal.own if entry.kind == Kind.ACCOUNT_DATA and entry.ref is not None
        }
        return await self._account_data.changed(session.user_nid, refs) if refs else ()

    async def acknowledge(self, session: Session, device: int) -> None:
        """Drop the to-device messages up to `device`: the client has shown to have them."""
        if device > 0:
            await self._to_device.delete(session, device)

    async def to_device(self, session: Session, after: int) -> tuple[bytes, int]:
        """Give messages to the device as bytes, and the number of the last one contained."""
        page = await self._to_device.after(session, after, MAX_TO_DEVICE)
        if page is None or not page.events:
            return b"", after
        return b",".join(page.events), page.last

    async def device_lists(self, to: Recipient, personal: Personal | None, shown: Sequence[Shown]) -> bytes:
        """Give the `device_lists` object, nothing if nobody is in it; a first sync has none."""
        if personal is None:
            return b""
        lists = await self._device_lists.of(to.session, personal, shown)
        return b"" if lists == NO_DEVICE_LISTS else lists.to_json()

    async def key_counts(self, session: Session) -> bytes:
        """Give the members that tell how many keys the device has left."""
        return (await self._keys.counts(session)).json


def global_account_data(data: Sequence[AccountDatum], wanted: EventFilter) -> bytes:
    """Give the account data of no room that the filter allows, comma-separated."""
    return b",".join(
        b'{"type":%b,"content":%b}' % (orjson.dumps(each.type), each.content)
        for each in data
        if each.room_nid is None and wanted.allows_type(each.type)
    )
