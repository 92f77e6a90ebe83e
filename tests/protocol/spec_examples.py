"""What the worked examples of `protocol/spec.md` say, made afresh from the code of the protocol.

`python -m tests.protocol.spec_examples` prints them as they stand in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import protocol
from protocol.canonical_json import JsonObject, encode
from protocol.events import Event, EventDraft, Links, build_event
from protocol.hashes import content_hash, reference_hash
from protocol.identifiers import EventID, RoomID, ServerName
from protocol.redaction import redact
from protocol.room_versions import V1, V6, V11, V12, RoomVersion
from protocol.server_keys import OldKey, build_key_document
from protocol.signing import encode_base64, sign_json
from protocol.xmatrix import build_xmatrix, signed_request
from tests.protocol.helpers import ALICE, KEY, NOW, OTHER_KEY, SERVER

SPEC = (Path(protocol.__file__).parent / "spec.md").read_text(encoding="utf-8")
SEED = bytes(range(32))
BETA = ServerName("beta.example")
_EXAMPLE = re.compile(r"^```json example=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_examples() -> Mapping[str, str]:
    """Give the examples of the text by name."""
    return dict(_EXAMPLE.findall(SPEC))


def make_examples() -> Mapping[str, object]:
    """Make every example that is computed."""
    versions = (V1, V6, V11, V12)
    return {
        "key": {
            "key_id": KEY.key_id,
            "public_key": encode_base64(bytes(KEY.verify_key)),
            "seed": encode_base64(SEED),
            "server_name": SERVER,
        },
        "signed-object": _signed_object(),
        **{f"event-v{version.id}": _events(version) for version in versions},
        "redaction": _redaction(),
        "request": _request(),
        "key-document": _key_document(),
    }


def _signed_object() -> JsonObject:
    obj: JsonObject = {"name": "Plait", "number": 12, "text": "zürich"}
    return {"canonical": encode(obj).decode(), "signed": sign_json(obj, SERVER, KEY)}


def conversation(version: RoomVersion) -> tuple[Event, Event]:
    """Build the create event of a room and a message that follows it."""
    content: JsonObject = {"room_version": version.id}
    if not version.implicit_room_creator:
        content["creator"] = ALICE
    room_id = None if version.room_id_is_create_hash else RoomID("!room:alpha.example")
    create = _build(EventDraft(room_id, "m.room.create", ALICE, content, ""), version, Links((), (), 1), NOW)
    named = (create.event_id,)
    hashes = {create.event_id: encode_base64(reference_hash(create.pdu, version))}
    links = Links(named, named if version.create_in_auth_events else (), 2, hashes)
    said = {"body": "Hello", "msgtype": "m.text"}
    message = _build(EventDraft(create.room_id, "m.room.message", ALICE, said), version, links, NOW + 1)
    return create, message


def _build(draft: EventDraft, version: RoomVersion, links: Links, now: int) -> Event:
    return build_event(draft, version, links, now=now, server_name=SERVER, key=KEY)


def _events(version: RoomVersion) -> JsonObject:
    create, message = conversation(version)
    return {"create": _described(create), "message": _described(message), "room_id": create.room_id}


def _described(event: Event) -> JsonObject:
    pdu = event.pdu
    return {
        "content_hash": encode_base64(content_hash(pdu, event.version)),
        "event_id": event.event_id,
        "pdu": pdu,
        "reference_hash": encode_base64(reference_hash(pdu, event.version)),
    }


def _redaction() -> JsonObject:
    create, message = conversation(V11)
    links = Links((message.event_id,), (create.event_id,), 3)
    target = EventID(message.event_id)
    draft = EventDraft(create.room_id, "m.room.redaction", ALICE, {"reason": "typo"}, redacts=target)
    redaction = _build(draft, V11, links, NOW + 2)
    return {"redacted": redact(message.pdu, V11), "redaction": _described(redaction)}


def _request() -> JsonObject:
    uri = "/_matrix/federation/v1/send/txn%2F1?x=%C3%A4"
    content = {"edus": [], "origin": SERVER, "origin_server_ts": NOW, "pdus": []}
    request = signed_request("PUT", uri, SERVER, BETA, content)
    signature = sign_json(request, SERVER, KEY)["signatures"][SERVER][KEY.key_id]
    header = build_xmatrix(origin=SERVER, destination=BETA, key_id=KEY.key_id, signature=signature)
    return {"authorization": header.decode(), "request": request}


def _key_document() -> JsonObject:
    old = OldKey(OTHER_KEY.key_id, OTHER_KEY.verify_key, NOW - 1)
    return build_key_document(SERVER, [KEY], [old], NOW + 86_400_000)


def written(value: object) -> str:
    """Write an example as the text has it."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def tables(heading: str) -> Iterator[tuple[str, ...]]:
    """Give the rows of the tables of a section, without heads, cells stripped of white space."""
    section = SPEC.split(f"\n### {heading}")[1].split("\n##")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for before, line in zip(["", *lines], lines, strict=False):
        is_head = not before or lines[lines.index(line) + 1 : lines.index(line) + 2] == [_rule(line)]
        if not is_head and line != _rule(line):
            yield tuple(cell.strip() for cell in line.strip("|").split("|"))


def _rule(line: str) -> str:
    return "|" + "---|" * (line.count("|") - 1)


if __name__ == "__main__":
    for example, its_value in make_examples().items():
        print(f"```json example={example}\n{written(its_value)}```\n")
