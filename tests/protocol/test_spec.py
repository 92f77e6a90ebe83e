"""The text of the protocol against its code: worked examples, states, frames and close codes."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import dumps, encode
from protocol.checks import parse_pdu, verify_pdu
from protocol.errors import Unrecognized
from protocol.frames import CLOSE_CODES, ClientFrame, decode_frame
from protocol.room_versions import V1, V6, V11, V12
from protocol.session import NEXT, Event, State, next_state
from protocol.signing import verify_json
from protocol.xmatrix import parse_xmatrix
from tests.protocol.helpers import KEY, SERVER
from tests.protocol.spec_examples import make_examples, read_examples, tables, written

TAGS = {frame.__struct_config__.tag: frame for frame in get_args(ClientFrame)}


class ExamplesTest(SynchronousTestCase):
    """Chapter 6."""

    def test_examples(self) -> None:
        """Each worked example is what the code makes, to the letter."""
        written_down = dict(read_examples())
        written_down.pop("session")
        self.assertEqual(written_down, {name: written(value) for name, value in make_examples().items()})

    def test_events_pass_the_checks(self) -> None:
        """Events of the examples pass the one door for events of others, and keep their IDs."""
        for version in (V1, V6, V11, V12):
            example = json.loads(read_examples()[f"event-v{version.id}"])
            for each in (example["create"], example["message"]):
                event = verify_pdu(parse_pdu(each["pdu"], version), {(SERVER, KEY.key_id): KEY.verify_key})
                self.assertFalse(event.hash_mismatch)
                self.assertEqual(event.event_id, each["event_id"])
                self.assertEqual(event.room_id, example["room_id"])

    def test_redacted_signature(self) -> None:
        """The signature on a redacted event fits what is left of it."""
        redacted = json.loads(read_examples()["redaction"])["redacted"]
        verify_json(redacted, SERVER, KEY.key_id, KEY.verify_key)

    def test_request(self) -> None:
        """The header of the signed request bears a signature of what it is beside."""
        example = json.loads(read_examples()["request"])
        header = parse_xmatrix(example["authorization"].encode())
        signed = {**example["request"], "signatures": {SERVER: {KEY.key_id: header.signature}}}
        verify_json(signed, SERVER, KEY.key_id, KEY.verify_key)
        self.assertEqual(encode(json.loads(encode(signed))), encode(signed))

    def test_session(self) -> None:
        """The frames of the session have the members of §4.2 and come in states that allow them."""
        state = State.GREETED
        server_frames = {row[0].strip("`"): row[1] for row in tables("4.2") if len(row) == 3}
        for step in json.loads(read_examples()["session"]):
            frame = step["frame"]
            if step["from"] == "server":
                self.assertIn(frame["type"], server_frames)
                if frame["type"] == "auth":
                    state = next_state(state, Event.ACCEPTED)
                continue
            try:
                state = next_state(state, decode_frame(dumps(frame)))
            except Unrecognized:
                self.assertEqual(frame["type"], "dance")
        self.assertIs(state, State.LIVE)


class TablesTest(SynchronousTestCase):
    """Chapter 4."""

    def test_states(self) -> None:
        """The table of states is that of the code."""
        found: dict[tuple[State, object], State] = {}
        for state, happenings, after in tables("4.3"):
            for name in happenings.split(", "):
                event = name.startswith("(")
                key = Event(name.strip("()")) if event else TAGS[name]
                found[State(state), key] = State(after)
        self.assertEqual(found, dict(NEXT))

    def test_close_codes(self) -> None:
        """The table of close codes is that of the code."""
        rows = [(int(code), reason.strip("`"), then) for code, reason, then, _ in tables("4.10")]
        self.assertEqual(rows, [(each.code, each.reason, each.reconnect.value) for each in CLOSE_CODES])

    def test_client_frames(self) -> None:
        """The table of the client's frames has their types, members, and which of these are needed."""
        rows = list(tables("4.2"))[: len(TAGS)]
        self.assertEqual([row[0].strip("`") for row in rows], list(TAGS))
        for name, members, _ in rows:
            fields = msgspec.structs.fields(TAGS[name.strip("`")])
            for each in fields:
                said = f"`{each.name}`?" if f"`{each.name}`?" in members else f"`{each.name}`"
                self.assertIn(said, members, name)
                if "one of" not in members:
                    self.assertEqual(each.required, not said.endswith("?"), (name, each.name))
            self.assertEqual(members.count("`") // 2, len(fields), name)
