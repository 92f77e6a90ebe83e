"""The room another server asks about: whether this server is in it, and whether the room lets the asker ask.

Source: server-server-api.md, "Server Access Control Lists (ACLs)"; security F9.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from protocol.errors import Forbidden, NotFound
from protocol.identifiers import EventID, RoomID, ServerName, StateKey
from protocol.server_acl import ServerAcl

ACL: StateKey = ("m.room.server_acl", "")
CREATE: StateKey = ("m.room.create", "")
MAX_COMPILED = 1_000
"""Compiled ACLs kept."""


@define(eq=False)
class RoomAccess:
    """Finds rooms for other servers."""

    nids: Nids
    heads: Heads
    _compiled: OrderedDict[EventID, ServerAcl] = field(factory=OrderedDict, init=False)

    async def resident(self, origin: ServerName, room_id: RoomID) -> RoomHead:
        """Give the head of a room this server is in.

        Raises:
            NotFound: this server is not in the room.
            Forbidden: the room's ACL denies `origin`.
        """
        head = await self.find(room_id)
        if head is None:
            raise NotFound("This server is not in the room")
        await self.require_allowed(origin, head)
        return head

    async def find(self, room_id: RoomID) -> RoomHead | None:
        """Give the head of a room that a user of this server is in, or None."""
        return await self.heads.of_resident(room_id)

    async def require_allowed(self, origin: ServerName, head: RoomHead) -> None:
        """Raise Forbidden if the current ACL of the room denies `origin`."""
        if not await self.allows(origin, head):
            raise Forbidden(f"{origin} is denied by the access control list of the room")

    async def may_list(self, origin: ServerName, head: RoomHead) -> bool:
        """Tell whether `origin` may find a published room: one that federates, and does not deny it."""
        create = (await head.state([CREATE])).get(CREATE)
        if create is None or create.content.get("m.federate") is False:
            return False
        return await self.allows(origin, head)

    async def allows(self, origin: ServerName, head: RoomHead) -> bool:
        """Tell whether the current ACL of the room lets `origin` take part."""
        event = (await head.state([ACL])).get(ACL)
        if event is None:
            return True
        acl = self._compiled.get(event.event_id)
        if acl is None:
            acl = ServerAcl.of(event.content)
            self._compiled[event.event_id] = acl
            if len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return acl.allows(origin)
