"""Keys, events and vectors that the tests of the protocol share."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.canonical_json import JsonObject
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import EventID, KeyID, RoomID, ServerName, UserID
from protocol.room_versions import ROOM_VERSIONS, RoomVersion
from protocol.signing import SigningKey

VECTORS = Path(__file__).parent / "vectors"
SERVER = ServerName("alpha.example")
ALICE = UserID("@alice:alpha.example")
BOB = UserID("@bob:beta.example")
KEY = SigningKey(bytes(range(32)), KeyID("ed25519:a_1"))
KEYS = {(SERVER, KEY.key_id): KEY.verify_key}
OTHER_KEY = SigningKey(bytes(range(1, 33)), KeyID("ed25519:b_2"))
NOW = 1_700_000_000_123
ALL_VERSIONS = tuple(ROOM_VERSIONS.values())


def room_id_for(version: RoomVersion) -> RoomID:
    """Give a room ID of the kind that a room version has."""
    return RoomID("!" + "R" * 43) if version.room_id_is_create_hash else RoomID("!room:alpha.example")


def event_id_for(version: RoomVersion, letter: str) -> EventID:
    """Give an event ID of the kind that a room version has."""
    return EventID(f"${letter * 43}" if version.hashed_event_ids else f"${letter}:alpha.example")


def build(version: RoomVersion, **fields: Any) -> Event:
    """Build an event of Alice's: a message unless `fields` of the draft say otherwise."""
    fields = {
        "room_id": room_id_for(version),
        "type": "m.room.message",
        "sender": ALICE,
        "content": {"msgtype": "m.text", "body": "hello"},
        **fields,
    }
    links = Links((event_id_for(version, "A"),), (event_id_for(version, "B"), event_id_for(version, "C")), 7)
    return build_event(EventDraft(**fields), version, links, now=NOW, server_name=SERVER, key=KEY)


def read_vectors() -> Iterator[tuple[RoomVersion, SigningKey, str, JsonObject]]:
    """Give events that Synapse built and signed: (version, its key, its name, the vector)."""
    for path in sorted(VECTORS.glob("events_v*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        key = SigningKey(b64decode(found["seed"] + "="), KeyID(found["key_id"]))
        for vector in found["events"]:
            yield ROOM_VERSIONS[found["room_version"]], key, found["server"], vector
