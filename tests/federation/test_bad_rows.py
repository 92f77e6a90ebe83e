"""Tests that what should never have come into the database does not stop what waits behind it."""

from __future__ import annotations

import json
from typing import Any

from protocol.canonical_json import decode, encode
from protocol.errors import MatrixError
from protocol.identifiers import ServerName
from storage.feed import Kind, NewEntry
from storage.outbound_edus import queue_rows
from storage.rows import run_all
from tests.federation.helpers import THERE
from tests.federation.network import Answer, Asked
from tests.federation.sender_helpers import SenderCase

GOOD = range(5)
BAD = (
    b'{"edu_type":"m.device_list_update","content":{"n":1.5}}',
    b'{"edu_type":"m.device_list_update","content":{"n":123456789012345678901}}',
    b'{"edu_type":"m.device_list_update","content":{"n":"\xff"}}',
    b'{"edu_type":"m.device_list_update",',
)


class BadRowTests(SenderCase):
    """The other server reads strictly, and refuses a transaction with anything odd in it."""

    def setUp(self) -> None:
        """Let the other server be strict."""
        super().setUp()
        self.numbers: list[Any] = []
        self.there.answers["PUT", "/_matrix/federation/v1/send/"] = self._take

    def _take(self, asked: Asked) -> Answer:
        try:
            edus = decode(asked.body)["edus"]
        except (MatrixError, json.JSONDecodeError):
            return Answer(400, b'{"errcode":"M_BAD_JSON","error":"odd"}')
        self.numbers += [edu["content"]["n"] for edu in edus]
        return Answer(200, b'{"pdus":{}}')

    def test_a_bad_edu_is_dropped(self) -> None:
        """An EDU that no server takes is left out, and those around it arrive (security: E1)."""
        rows = [encode({"edu_type": "x", "content": {"n": n}}) for n in GOOD]
        for number, bad in enumerate(BAD):
            rows.insert(number + 1, bad)
        there, now = ServerName(THERE), self.world.now
        queued = queue_rows([(number, there, now, edu) for number, edu in enumerate(rows, 1)])
        self.world.database.run(run_all, [queued])
        self.home.feed(NewEntry(Kind.OUTBOUND_EDU, ref=len(rows)))
        self._pass(600)
        self.assertEqual(self.numbers, list(GOOD))
        self.assertEqual(self.world.database.rows("SELECT * FROM outbound_edus"), [])
