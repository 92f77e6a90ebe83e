"""Messages from device to device: stored until the device shows that it has them, sent to other servers.

Source: client-server-api/modules/send_to_device.md; server-server-api.md, "Send-to-device messaging".
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import Factory, define, frozen
from twisted.logger import Logger

from homeserver.devices.outbox import queued
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.write import TransactionRepeated, Write
from homeserver.sync.session import Session
from homeserver.sync.suppliers import ToDevicePage
from protocol.canonical_json import JsonObject, dumps, encode
from protocol.errors import TooLarge
from protocol.identifiers import DeviceID, ServerName, UserID, server_of
from storage import to_device
from storage.database import Database
from storage.feed import Entry, Kind, NewEntry
from storage.rows import Rows
from storage.to_device import ToDeviceRow
from storage.transactions import Claim, TransactionKey

ALL_DEVICES: Final = "*"
MAX_MESSAGE_BYTES: Final = 65_536
MAX_EMPTY: Final = 50_000
MAX_WAITING: Final = 10_000
"""Messages that wait for one device; past that the older half is dropped."""
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""The same in bytes."""

_log = Logger()

Messages = Mapping[UserID, Mapping[str, JsonObject]]
"""Contents by user and device; the device `*` stands for all of the user's."""


class UserDevices(Protocol):
    """Knows the devices of local users."""

    async def device_ids(self, user_id: UserID) -> Sequence[DeviceID]:
        """Give a local user's devices; none for a user who does not exist."""
        ...


@frozen
class Parcel:
    """What one EDU of another server brings."""

    sender: UserID
    message_id: str
    type: str
    messages: Messages


@define(eq=False)
class ToDeviceMessages:
    """The post between devices."""

    server_name: ServerName
    database: Database
    persister: Persister
    nids: Nids
    devices: UserDevices
    max_waiting: int = MAX_WAITING
    _empty: dict[tuple[int, str], None] = Factory(dict)
    """Devices for which nothing waits."""
    _changes: int = 0
    """Counts messages told of by the feed: what was looked up meanwhile may be out of date."""

    async def send(
        self, sender: UserID, event_type: str, messages: Messages, txn: TransactionKey, now: int
    ) -> None:
        """Send messages of a local device; a repeat of the transaction sends nothing.

        Raises:
            TooLarge: a message is over the limit.
            BadJson: one for another server has numbers that canonical JSON does not have.
        """
        local = {user: by for user, by in messages.items() if server_of(user) == self.server_name}
        remote = {user: by for user, by in messages.items() if user not in local}
        rows, entries = await self._local(sender, event_type, local)
        for server in {server_of(user) for user in remote}:
            theirs = {user: by for user, by in remote.items() if server_of(user) == server}
            for edu in _edus(sender, event_type, theirs):
                edu_rows, entry = await queued(self.nids, server, edu, now)
                rows.append(edu_rows)
                entries.append(entry)
        try:
            claim = Claim(txn, now, None, None, None)
            await self.persister.commit(Write(tuple(rows), tuple(entries), txn=claim))
        except TransactionRepeated:
            return

    async def receive(self, origin: ServerName, parcel: Parcel, now: int) -> None:
        """Take in another server's messages, once for each message ID."""
        if server_of(parcel.sender) != origin:
            return
        if await self.database.read(to_device.is_received, origin, parcel.message_id):
            return
        local = {user: by for user, by in parcel.messages.items() if server_of(user) == self.server_name}
        rows, entries = await self._local(parcel.sender, parcel.type, local)
        rows.append(to_device.received_rows(origin, parcel.message_id, now))
        if entries:
            await self.persister.commit(Write(tuple(rows), tuple(entries)))

    async def after(self, session: Session, after: int, limit: int) -> ToDevicePage | None:
        """Give messages behind a position, None if there are none."""
        key = (session.user_nid, session.device_id)
        if key in self._empty:
            return None
        changes = self._changes
        found = await self.database.read(to_device.after, session.user_nid, session.device_id, after, limit)
        if found:
            return ToDevicePage([content for _, content in found], found[-1][0])
        is_empty = after == 0 or not await self.database.read(to_device.count, *key)
        if is_empty and changes == self._changes:
            self._remember_empty(key)
        return None

    async def delete(self, session: Session, upto: int) -> None:
        """Drop messages up to a position."""
        if (session.user_nid, session.device_id) not in self._empty:
            await self.database.write(to_device.delete, session.user_nid, session.device_id, upto)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: for whom a message came, there is one to read."""
        users = {entry.user_nid for entry in entries if entry.kind == Kind.TO_DEVICE}
        if users:
            self._changes += 1
            for key in [key for key in self._empty if key[0] in users]:
                del self._empty[key]

    def _remember_empty(self, key: tuple[int, str]) -> None:
        self._empty[key] = None
        if len(self._empty) > MAX_EMPTY:
            del self._empty[next(iter(self._empty))]

    async def _make_place(self, user_nid: int, device_ids: Sequence[DeviceID]) -> None:
        """Drop the older half of what waits for devices that do not fetch their post."""
        waiting = await self.database.read(to_device.waiting, user_nid, device_ids)
        for device_id, (count, size) in waiting.items():
            if count >= self.max_waiting or size >= MAX_WAITING_BYTES:
                await self.database.write(to_device.keep_newest, user_nid, device_id, count // 2)
                _log.warn("dropped {count} old messages to a silent device", count=count - count // 2)

    async def _local(
        self, sender: UserID, event_type: str, messages: Messages
    ) -> tuple[list[Rows], list[NewEntry]]:
        rows: list[ToDeviceRow] = []
        entries: list[NewEntry] = []
        for user_id, by_device in messages.items():
            known = await self.devices.device_ids(user_id)
            if not known:
                continue
            user_nid = await self.nids.user(user_id)
            addressed = _addressed(by_device, known)
            await self._make_place(user_nid, [device_id for device_id, _ in addressed])
            for device_id, content in addressed:
                event = dumps({"content": content, "sender": sender, "type": event_type})
                if len(event) > MAX_MESSAGE_BYTES:
                    raise TooLarge(f"a message has more than {MAX_MESSAGE_BYTES} bytes")
                await self.nids.messages.ready(1)
                nid = self.nids.messages.take()
                rows.append(ToDeviceRow(user_nid, device_id, nid, event))
                entries.append(NewEntry(Kind.TO_DEVICE, user_nid=user_nid, ref=nid))
        return ([to_device.message_rows(*rows)] if rows else []), entries


def _addressed(
    by_device: Mapping[str, JsonObject], known: Sequence[DeviceID]
) -> list[tuple[DeviceID, JsonObject]]:
    """Give the messages for devices that exist; one for a device itself goes before one for all."""
    everyone = by_device.get(ALL_DEVICES)
    chosen = {device: by_device.get(device, everyone) for device in known}
    return [(device, content) for device, content in chosen.items() if content is not None]


def _edus(sender: UserID, event_type: str, messages: Messages) -> list[bytes]:
    """Give messages to users of one server as EDUs in canonical JSON, as many as their size demands.

    Raises TooLarge for a message that fits into none, BadJson for one that canonical JSON cannot hold.
    """
    bare = len(_edu(sender, event_type, {}))
    parts: list[dict[UserID, dict[str, JsonObject]]] = []
    room = 0
    for user_id, by_device in messages.items():
        for device_id, content in by_device.items():
            size = len(encode({user_id: {device_id: content}}))
            if bare + size > MAX_MESSAGE_BYTES:
                raise TooLarge(f"a message has more than {MAX_MESSAGE_BYTES} bytes")
            if size > room:
                parts.append({})
                room = MAX_MESSAGE_BYTES - bare
            parts[-1].setdefault(user_id, {})[device_id] = content
            room -= size
    return [_edu(sender, event_type, part) for part in parts]


def _edu(sender: UserID, event_type: str, messages: Messages) -> bytes:
    content: dict[str, Any] = {
        "sender": sender,
        "type": event_type,
        "message_id": secrets.token_urlsafe(16),
        "messages": messages,
    }
    return encode({"edu_type": "m.direct_to_device", "content": content})
