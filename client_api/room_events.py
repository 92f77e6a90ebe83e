"""Sending events: messages, state, redactions.

Source: client-server-api/_index.md, "Sending events to a room" and "Redactions".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from client_api.bodies import event_of, room_of
from client_api.paths import v3
from homeserver.http.calls import Call, Reply
from homeserver.http.routing import RateClass, Route
from homeserver.rooms.messages import Messages
from protocol.events import EventDraft
from storage.transactions import TransactionKey

SENT_AT = "org.plait.origin_server_ts"
"""What `PUT …/send` answers beside the event ID: the event's time, which others see too."""


@frozen(eq=False)
class RoomEvents:
    """What users say and set."""

    messages: Messages

    async def send(self, call: Call[dict[str, Any]]) -> Reply:
        """PUT …/rooms/{roomId}/send/{eventType}/{txnId}."""
        draft = EventDraft(room_of(call), call.path["eventType"], call.requester.user_id, call.body)
        key = transaction_of(call, "send", call.path["roomId"], call.path["eventType"])
        event = (await self.messages.send(draft, key, call.now)).event
        return {"event_id": event.event_id, SENT_AT: event.origin_server_ts}

    async def set_state(self, call: Call[dict[str, Any]]) -> Reply:
        """PUT …/rooms/{roomId}/state/{eventType}/{stateKey}."""
        state_key = call.path.get("stateKey", "")
        draft = EventDraft(
            room_of(call), call.path["eventType"], call.requester.user_id, call.body, state_key=state_key
        )
        stored = await self.messages.set_state(draft, call.now)
        return {"event_id": stored.event.event_id}

    async def redact(self, call: Call[dict[str, Any]]) -> Reply:
        """PUT …/rooms/{roomId}/redact/{eventId}/{txnId}."""
        draft = EventDraft(
            room_of(call),
            "m.room.redaction",
            call.requester.user_id,
            call.body,
            redacts=event_of(call),
        )
        key = transaction_of(call, "redact", call.path["roomId"], call.path["eventId"])
        stored = await self.messages.send(draft, key, call.now)
        return {"event_id": stored.event.event_id}

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        room = "/rooms/{roomId}"
        limit = RateClass.MESSAGES
        send = v3(f"{room}/send/{{eventType}}/{{txnId}}")
        state = v3(f"{room}/state/{{eventType}}", f"{room}/state/{{eventType}}/{{stateKey*}}")
        redact = v3(f"{room}/redact/{{eventId}}/{{txnId}}")
        return (
            Route("PUT", send, self.send, body=dict, limit=limit),
            Route("PUT", state, self.set_state, body=dict, limit=limit),
            Route("PUT", redact, self.redact, body=dict, limit=limit),
        )


def transaction_of(call: Call[Any], *scope: str) -> TransactionKey:
    """Give the idempotence key of a request: who, which device, which endpoint with its path, which ID."""
    requester = call.requester
    return TransactionKey.of(requester.user_nid, requester.device_id, scope, call.path["txnId"])
