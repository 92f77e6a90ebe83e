"""Tests of the redaction algorithm."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.hashes import encode_pdu, event_id_of
from protocol.redaction import redact, redact_event
from protocol.room_versions import V1, V6, V11, V12
from tests.protocol.helpers import ALL_VERSIONS, build, read_vectors

TYPES = [
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.aliases",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.message",
]
KEYS = sorted(
    {key for version in ALL_VERSIONS for keys in version.redaction.content.values() for key in keys}
)
KEYS += ["body", "third_party_invite", "signed"]
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
CONTENTS = st.dictionaries(st.sampled_from(KEYS), VALUES)


class RedactTests(SynchronousTestCase):
    """What stays."""

    def test_synapse_keeps_the_same(self) -> None:
        """Of every vector and version just that stays which Synapse keeps, to the last byte."""
        for version, _, _, vector in read_vectors():
            what = f"{vector['name']} in version {version.id}"
            kept = redact(vector["pdu"], version)
            self.assertEqual(kept["content"], vector["redacted_content"], what)
            self.assertEqual(sorted(kept), vector["redacted_keys"], what)
            digest = hashlib.sha256(encode_pdu(kept, version)).hexdigest()
            self.assertEqual(digest, vector["redacted_sha256"], what)

    @given(st.sampled_from(ALL_VERSIONS), st.sampled_from(TYPES), CONTENTS, CONTENTS)
    def test_redaction_is_idempotent_and_keeps_the_id(
        self, version: Any, event_type: str, content: dict[str, Any], extra: dict[str, Any]
    ) -> None:
        """A redacted event redacts to itself, under the ID it had before."""
        event = build(version, type=event_type, content=content, state_key="")
        pdu = {**event.pdu, **{f"x{key}": value for key, value in extra.items()}, "unsigned": {"age": 1}}
        once = redact(pdu, version)
        self.assertEqual(redact(once, version), once)
        self.assertEqual(event_id_of(once, version), event.event_id)
        self.assertNotIn("unsigned", once)

    def test_nonsense_is_redacted_too(self) -> None:
        """A content that is no object, or a type that is no string, leaves nothing and breaks nothing."""
        for version in ALL_VERSIONS:
            for nonsense in (None, 5, "x", [], [1]):
                self.assertEqual(
                    redact({"type": "m.room.member", "content": nonsense}, version)["content"], {}
                )
                self.assertEqual(
                    redact({"type": nonsense, "content": {"membership": 1}}, version)["content"], {}
                )

    def test_the_original_stays_as_it_was(self) -> None:
        """Redacting changes nothing of the PDU given."""
        pdu = build(V11).pdu
        before = encode_pdu(pdu, V11)
        redact(pdu, V11)
        self.assertEqual(encode_pdu(pdu, V11), before)


class RedactEventTests(SynchronousTestCase):
    """Redacting an `Event`."""

    def test_an_event_keeps_its_place(self) -> None:
        """ID, sender, parents and time stay; the content goes, also from the bytes that travel."""
        for version in ALL_VERSIONS:
            event = build(version, content={"body": "secret"})
            self.assertEqual(event.content["body"], "secret")
            redacted = redact_event(event)
            self.assertEqual(redacted, event)
            self.assertEqual(redacted.content, {})
            self.assertNotIn(b"secret", redacted.raw)
            self.assertEqual(
                (redacted.prev_events, redacted.auth_events, redacted.sender, redacted.origin_server_ts),
                (event.prev_events, event.auth_events, event.sender, event.origin_server_ts),
            )

    def test_a_redaction_loses_its_target_where_it_stands_at_the_top(self) -> None:
        """A redacted redaction names its target still only where that is part of the content that stays."""
        target = "$" + "T" * 43
        for version, wanted in ((V1, None), (V6, None), (V11, target), (V12, target)):
            event = build(version, type="m.room.redaction", content={"reason": "x"}, redacts=target)
            self.assertEqual(event.redacts, target)
            self.assertEqual(redact_event(event).redacts, wanted)
