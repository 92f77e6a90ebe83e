"""What another server sends: transactions and handshakes with one part of them wrong, rightly signed."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from protocol.canonical_json import JsonObject
from protocol.checks import parse_pdu
from protocol.errors import MatrixError
from protocol.hashes import content_hash
from protocol.redaction import redact
from protocol.room_versions import V11, V12, RoomVersion
from protocol.signing import encode_base64, sign_json
from tests.scenarios.fuzz.shapes import Texts, altered, mostly, to_bytes, value_of
from tests.scenarios.fuzz.world import HERE, OTHER_KEY, REMOTE_USER, THERE, FuzzServer

NOW = 1_700_000_000_000
FAR_ROOM = f"!far:{THERE}"
"""A room that this server is not in."""
NAMELESS = "$" + "A" * 43


@frozen
class Shapes:
    """Makes what the other server sends, from right examples."""

    server: FuzzServer
    made: JsonObject
    """A template of a membership event, with the room's present parents and authority."""
    texts: Texts

    def pdu(self, event_type: str, content: JsonObject, state_key: str | None = None) -> JsonObject:
        """Give a PDU of Rita's in the room, not yet signed."""
        pdu = {
            "room_id": self.server.room_id,
            "type": event_type,
            "sender": REMOTE_USER,
            "content": content,
            "origin_server_ts": NOW,
            "depth": self.made["depth"],
            "prev_events": self.made["prev_events"],
            "auth_events": self.made["auth_events"],
        }
        return pdu if state_key is None else {**pdu, "state_key": state_key}

    def member(self, membership: str, state_key: str = REMOTE_USER) -> JsonObject:
        """Give a membership event of Rita's making."""
        return self.pdu("m.room.member", {"membership": membership, "displayname": "Rita"}, state_key)

    def pdus(self) -> st.SearchStrategy[JsonObject]:
        """Give PDUs of several types with one part exchanged."""
        rights = (
            self.pdu("m.room.message", {"msgtype": "m.text", "body": "hi", "m.mentions": {"user_ids": []}}),
            self.pdu("m.room.redaction", {"redacts": self.server.event_id, "reason": "no"}),
            self.pdu(
                "m.room.power_levels",
                {"users": {REMOTE_USER: 5}, "ban": 50, "notifications": {"room": 5}},
                "",
            ),
            self.pdu(
                "m.reaction",
                {"m.relates_to": {"rel_type": "m.annotation", "event_id": self.server.event_id, "key": "k"}},
            ),
            self.member("join"),
            self.member("invite", f"@alice:{HERE}"),
        )
        return st.one_of([altered(right, self.texts) for right in rights]).map(signed)

    def edus(self) -> st.SearchStrategy[JsonObject]:
        """Give EDUs of all types with one part exchanged."""
        room = self.server.room_id
        contents: dict[str, JsonObject] = {
            "m.typing": {"room_id": room, "user_id": REMOTE_USER, "typing": True},
            "m.receipt": {
                room: {"m.read": {REMOTE_USER: {"event_ids": [self.server.event_id], "data": {"ts": NOW}}}}
            },
            "m.presence": {
                "push": [
                    {"user_id": REMOTE_USER, "presence": "online", "last_active_ago": 5, "status_msg": "x"}
                ]
            },
            "m.direct_to_device": {
                "sender": REMOTE_USER,
                "type": "m.room_key_request",
                "message_id": "1",
                "messages": {f"@alice:{HERE}": {"*": {"a": 1}}},
            },
            "m.device_list_update": {
                "user_id": REMOTE_USER,
                "device_id": "D",
                "stream_id": 3,
                "prev_id": [2],
                "keys": {"user_id": REMOTE_USER, "device_id": "D", "algorithms": [], "keys": {}},
            },
            "m.signing_key_update": {
                "user_id": REMOTE_USER,
                "master_key": {"user_id": REMOTE_USER, "usage": ["master"], "keys": {"ed25519:a": "a"}},
            },
        }
        whole = [{"edu_type": name, "content": content} for name, content in contents.items()]
        return st.one_of([altered(each, self.texts) for each in whole])

    def transactions(self) -> st.SearchStrategy[bytes]:
        """Give bodies of transactions, whose parts are wrong, or which are wrong themselves."""
        wrong = value_of(dict, self.texts)
        pdus = st.lists(self.pdus() | wrong, max_size=3)
        edus = st.lists(self.edus() | wrong, max_size=4)
        parts = {"origin": st.just(THERE), "origin_server_ts": st.just(NOW), "pdus": pdus, "edus": edus}
        return st.fixed_dictionaries(parts).map(to_bytes)

    def handshakes(self, membership: str) -> st.SearchStrategy[JsonObject]:
        """Give membership events for the second half of a handshake."""
        target = f"@alice:{HERE}" if membership == "invite" else REMOTE_USER
        right = self.member(membership, target)
        return st.just(signed(right)) | altered(right, self.texts).map(signed)

    def invites(self) -> st.SearchStrategy[JsonObject]:
        """Give bodies of invites."""
        shown = [
            {"type": "m.room.name", "state_key": "", "sender": REMOTE_USER, "content": {"name": "x"}},
            self.pdu("m.room.create", {"room_version": "12"}, ""),
        ]
        member = {**self.member("invite", f"@alice:{HERE}"), "room_id": FAR_ROOM, "prev_events": [NAMELESS]}
        events = st.just(member) | altered(member, self.texts)
        whole = events.map(
            lambda event: {"room_version": "11", "event": signed(event, V11), "invite_room_state": shown}
        )
        return mostly(whole, whole.flatmap(lambda body: altered(body, self.texts)), 1)

    def path_of(self, event: Any) -> str:
        """Give room and event ID for the path of a handshake, the right ones if there are any."""
        room_id = event.get("room_id") if isinstance(event, dict) else None
        version, room_id = (V11, FAR_ROOM) if room_id == FAR_ROOM else (V12, self.server.room_id)
        try:
            return f"{room_id}/{parse_pdu(event, version).event_id}"
        except MatrixError:
            return f"{room_id}/{NAMELESS}"

    def of(self, path: str) -> st.SearchStrategy[tuple[str, bytes]] | None:
        """Give requests near to right ones for a path template; None where the declared type says enough."""
        start, _, end = path.partition("/send/")
        if end:
            return st.tuples(
                st.integers(0, 10**9).map(lambda number: f"{start}/send/{number}"), self.transactions()
            )
        for name in ("join", "leave", "knock"):
            head, found, _ = path.partition(f"/send_{name}/")
            if found:
                return self.handshakes(name).map(partial(self._at, head + found))
        head, found, _ = path.partition("/invite/")
        if found:
            events = self.invites() if "/v2/" in path else self.handshakes("invite")
            return events.map(partial(self._at, head + found))
        return None

    def _at(self, start: str, body: Any) -> tuple[str, bytes]:
        """Give target and bytes of a body that holds an event or is one."""
        return f"{start}{self.path_of(_event(body))}", to_bytes(body)


def signed(pdu: Any, version: RoomVersion = V12) -> Any:
    """Hash and sign a PDU as its sender's server would, if it can be written at all."""
    if not isinstance(pdu, dict):
        return pdu
    try:
        hashed = {**pdu, "hashes": {"sha256": encode_base64(content_hash(pdu, version))}}
        key = OTHER_KEY
        signatures = sign_json(redact(hashed, version), THERE, key)["signatures"]
    except Exception:
        return {**pdu, "hashes": {"sha256": "A" * 43}, "signatures": {THERE: {"ed25519:1": "A" * 86}}}
    return {**hashed, "signatures": signatures}


def _event(body: Any) -> Any:
    return body.get("event") if isinstance(body, dict) and "event" in body else body
