"""How what passes, and the post and keys of devices, hang together; `app.py` calls it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from attrs import frozen

from homeserver.core import Core
from homeserver.devices.keys import DeviceKeys, RemoteKeys
from homeserver.devices.news import DeviceNews
from homeserver.devices.to_device import ToDeviceMessages, UserDevices
from homeserver.ephemeral.deliveries import DeliveryMarks, DeliveryStores, Ignored
from homeserver.ephemeral.incoming import IncomingEdus, SpeakingRights
from homeserver.ephemeral.presence import Presences
from homeserver.ephemeral.receipts import ReadReceipts
from homeserver.ephemeral.ring import EphemeralRing
from homeserver.ephemeral.sharing import RoomSharing
from homeserver.ephemeral.typing import SendEdu, TypingUsers

_RING_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


@frozen(eq=False)
class Passing:
    """Receipts, typing, presence, the post and keys of devices, and what comes of these from elsewhere."""

    ring: EphemeralRing
    sharing: RoomSharing
    typing: TypingUsers
    receipts: ReadReceipts
    presences: Presences
    to_device: ToDeviceMessages
    keys: DeviceKeys
    deliveries: DeliveryMarks
    incoming: IncomingEdus

    def wake_by(self, wake_room: Callable[[int], None]) -> None:
        """Have `wake_room` called with the nid of each room whose members have something new to see."""
        self.ring.on_typing(wake_room)
        self.ring.on_presence(lambda user_id: _each(wake_room, self.sharing.rooms_of(user_id)))


@frozen(eq=False)
class Outside:
    """What it needs of others."""

    devices: UserDevices
    remote: RemoteKeys
    rights: SpeakingRights
    send_edu: SendEdu
    ignored: Ignored


def make_passing(core: Core, outside: Outside, *, presence: bool, delivery_members: int) -> Passing:
    """Build it; `presence` tells whether users see who is online, `delivery_members` is the most that a
    room with delivery marks has.
    """
    devices, send_edu = outside.devices, outside.send_edu
    name, clock, nids = core.author.server_name, core.clock, core.nids
    sharing = RoomSharing(core.database, nids)
    core.feed.add_cache(sharing.apply)
    incarnation = "".join(secrets.choice(_RING_LETTERS) for _ in range(12))
    ring = EphemeralRing(incarnation, clock.now_ms, sharing)
    typing = TypingUsers(name, clock, core.heads, ring, send_edu)
    core.feed.add_cache(typing.apply)
    receipts = ReadReceipts(name, core.database, core.persister, core.heads, core.stored, nids, send_edu)
    presences = Presences(name, presence, clock, ring, sharing, send_edu)
    to_device = ToDeviceMessages(name, core.database, core.persister, nids, devices)
    core.feed.add_cache(to_device.apply)
    news = DeviceNews(name, core.database, nids, clock)
    keys = DeviceKeys(name, core.database, core.persister, nids, news, outside.remote)
    core.feed.add_cache(keys.apply)
    stores = DeliveryStores(
        core.feed, core.database, core.persister, core.heads, core.stored, nids, outside.ignored
    )
    deliveries = DeliveryMarks(name, delivery_members, clock, stores, send_edu)
    incoming = IncomingEdus(nids, outside.rights, typing, receipts, deliveries, presences, to_device, keys)
    return Passing(ring, sharing, typing, receipts, presences, to_device, keys, deliveries, incoming)


def _each(wake: Callable[[int], None], room_nids: Iterable[int]) -> None:
    for room_nid in room_nids:
        wake(room_nid)
