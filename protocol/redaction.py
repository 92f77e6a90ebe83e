"""The redaction algorithm: what of an event cannot be taken away.

Redaction leaves the event ID, the hashes and the signatures as they are; they were made of what stays.

Source: client-server-api/_index.md, "Redactions"; rooms/v1.md, v6.md, v8.md, v9.md, v11.md.
"""

from __future__ import annotations

from attrs import evolve

from protocol.canonical_json import JsonObject
from protocol.events import Event
from protocol.pdu_json import decode_pdu, encode_pdu
from protocol.room_versions import RoomVersion


def redact(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """Give what stays of a PDU once it is redacted; `unsigned` goes too."""
    kept = {key: value for key, value in pdu.items() if key in version.redaction.top_level}
    kept["content"] = redact_content(pdu.get("type"), pdu.get("content"), version)
    return kept
