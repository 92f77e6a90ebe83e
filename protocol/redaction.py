"""The redaction algorithm: what of an event cannot be taken away.

Redaction leaves the event ID, the hashes and the signatures as they are, for they were made of what stays.
Whether a redaction may be applied is a matter of authorisation, not of this module.

Source: client-server-api/_index.md, "Redactions"; rooms/v1.md, v6.md, v8.md, v9.md and v11.md.
"""

from __future__ import annotations

from typing import Protocol, Self, TypeVar

from protocol.canonical_json import JsonObject, JsonValue
from protocol.room_versions import RoomVersion


class Redactable(Protocol):
    """What `redact_event` needs of an event."""

    @property
    def version(self) -> RoomVersion:
        """Give the version of the event's room."""
        ...

    @property
    def pdu(self) -> JsonObject:
        """Give the event as a PDU."""
        ...

    def with_pdu(self, pdu: JsonObject) -> Self:
        """Give the same event with other JSON."""
        ...


R = TypeVar("R", bound=Redactable)


def redact(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """Give what stays of a PDU once it is redacted; its `unsigned` goes too."""
    top_level = version.redaction.top_level
    kept = {key: value for key, value in pdu.items() if key in top_level}
    kept["content"] = redact_content(pdu.get("type"), pdu.get("content"), version)
    return kept


def redact_content(event_type: JsonValue, content: JsonValue, version: RoomVersion) -> JsonObject:
    """Give what stays of the content of an event of that type."""
    rules = version.redaction
    if not isinstance(content, dict) or not isinstance(event_type, str):
        return {}
    if event_type in rules.whole_content:
        return content
    keys = rules.content.get(event_type)
    if keys is None:
        return {}
    kept = {key: value for key, value in content.items() if key in keys}
    if rules.third_party_signed and event_type == "m.room.member":
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            kept["third_party_invite"] = {key: value for key, value in invite.items() if key == "signed"}
    return kept


def redact_event(event: R) -> R:
    """Give the event as it is after its redaction: the same ID and place, and no more than must stay."""
    return event.with_pdu(redact(event.pdu, event.version))
