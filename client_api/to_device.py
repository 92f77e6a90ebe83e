"""Messages from device to device.

Source: client-server-api/modules/send_to_device.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.paths import v3
from client_api.room_events import transaction_of
from homeserver.devices.to_device import ToDeviceMessages
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import RateClass, Route
from protocol.errors import InvalidParam
from protocol.identifiers import parse_user_id

MAX_DEVICES = 1_000


class SendToDevice(msgspec.Struct, frozen=True):
    """The body: contents by user and device."""

    messages: dict[str, dict[str, dict[str, Any]]]


@frozen(eq=False)
class ToDevice:
    """The post between devices."""

    post: ToDeviceMessages

    async def send(self, call: Call[SendToDevice]) -> Reply:
        """PUT /sendToDevice/{eventType}/{txnId}."""
        messages = {parse_user_id(user): by for user, by in call.body.messages.items()}
        if sum(len(by) for by in messages.values()) > MAX_DEVICES:
            raise InvalidParam(f"messages: for more than {MAX_DEVICES} devices")
        event_type = call.path["eventType"]
        key = transaction_of(call, "sendToDevice", event_type)
        await self.post.send(call.requester.user_id, event_type, messages, key, call.now)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        paths = v3("/sendToDevice/{eventType}/{txnId}")
        return (Route("PUT", paths, self.send, body=SendToDevice, limit=RateClass.MESSAGES),)
