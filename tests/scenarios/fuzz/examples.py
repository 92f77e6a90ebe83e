"""Right parameters, query fields and bodies for the server under test, from which wrong ones are made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from homeserver.http.routing import Route
from tests.scenarios.fuzz.shapes import Vocabulary, mostly
from tests.scenarios.fuzz.words import WORDS
from tests.scenarios.fuzz.world import HERE, REMOTE_USER, THERE, FuzzServer

ALICE, BOB, GHOST = f"@alice:{HERE}", f"@bob:{HERE}", "@ghost:elsewhere.test"
ALIAS = f"#parlour:{HERE}"
NOWHERE = "!" + "A" * 43
NAMELESS = "$" + "A" * 43
TYPES = (
    "m.room.message",
    "m.room.member",
    "m.room.power_levels",
    "m.room.create",
    "m.room.name",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.server_acl",
    "m.room.redaction",
    "m.reaction",
    "m.space.child",
    "x",
)
NEEDED = {
    "/messages": ("dir", "from"),
    "/timestamp_to_event": ("ts", "dir"),
    "/sync": ("since",),
    "/register/available": ("username",),
    "/query/directory": ("room_alias",),
    "/query/profile": ("user_id",),
    "/state/{room_id}": ("event_id",),
    "/state_ids/{room_id}": ("event_id",),
    "/backfill/{room_id}": ("v", "limit"),
    "/make_join/{room_id}/{user_id}": ("ver",),
    "/make_knock/{room_id}/{user_id}": ("ver",),
}


def vocabulary(server: FuzzServer, tokens: Sequence[str]) -> Vocabulary:
    """Give the words; `tokens` are places in history and sync that the server has named."""
    rooms, events = [server.room_id, server.room_id, NOWHERE], [server.event_id, server.event_id, NAMELESS]
    known = [*rooms, *events, ALICE, BOB, GHOST, REMOTE_USER, HERE, THERE, ALIAS]
    texts = mostly(st.sampled_from(known), st.sampled_from(WORDS) | st.text(max_size=10), 2)
    users = [ALICE, ALICE, BOB, REMOTE_USER, GHOST]
    return Vocabulary(texts, _parts(rooms, events, users), _fields(events, users, tokens), NEEDED)


def _parts(rooms: list[str], events: list[str], users: list[str]) -> Mapping[str, Sequence[str]]:
    return {
        "roomId": rooms,
        "room_id": rooms,
        "roomIdOrAlias": [*rooms, ALIAS],
        "roomAlias": [ALIAS, f"#new:{HERE}", f"#far:{THERE}"],
        "userId": users,
        "user_id": [REMOTE_USER, REMOTE_USER, ALICE],
        "eventId": events,
        "event_id": events,
        "eventType": TYPES,
        "stateKey": ["", ALICE, BOB, "x"],
        "txnId": ["1", "2", "3"],
        "txn_id": ["1", "2", "3"],
        "type": [
            "x",
            "m.direct",
            "m.ignored_user_list",
            "m.tag",
            "m.push_rules",
            "m.fully_read",
            "m.widgets",
        ],
        "tag": ["u.x", "m.favourite"],
        "keyName": ["displayname", "avatar_url", "m.tz", "org.example.x"],
        "kind": ["override", "underride", "sender", "room", "content"],
        "ruleId": ["x", "y", ".m.rule.master", "!r:x", ALICE],
        "filterId": ["0", "1", "2"],
        "deviceId": ["PHONE", "X"],
        "receiptType": ["m.read", "m.read.private", "m.fully_read"],
        "authType": ["m.login.dummy", "m.login.registration_token", "m.login.password"],
        "relType": ["m.thread", "m.annotation"],
        "server": [HERE, THERE],
        "key_id": ["", "ed25519:1"],
        "query_type": ["profile", "x"],
    }


def _fields(events: list[str], users: list[str], tokens: Sequence[str]) -> Mapping[str, Sequence[str]]:
    filters = (
        {"types": ["m.*"], "limit": 2},
        {"room": {"timeline": {"limit": 1}, "rooms": []}},
        {"limit": -1},
    )
    return {
        "from": tokens,
        "to": tokens,
        "since": tokens,
        "at": tokens,
        "dir": ["b", "f"],
        "limit": ["0", "1", "5"],
        "ts": ["0", "1700000000000"],
        "filter": ["0", *map(json.dumps, filters)],
        "event_id": events,
        "v": events,
        "ver": ["12", "11", "1"],
        "via": [THERE],
        "user_id": users,
        "room_alias": [ALIAS],
        "field": ["displayname", "x"],
        "membership": ["join", "leave"],
        "not_membership": ["ban"],
        "include": ["all", "participated"],
        "full_state": ["true"],
        "set_presence": ["offline", "unavailable"],
        "before": ["x", "y"],
        "after": ["x", ".m.rule.master"],
        "minimum_valid_until_ts": ["1700000000000"],
        "server": [HERE, THERE],
        "username": ["alice", "zoe"],
    }


def bodies(server: FuzzServer, route: Route) -> Sequence[Any]:
    """Give right bodies for a route that declares no type of its own, or whose type says little."""
    path = route.paths[0]
    for end, examples in _bodies(server).items():
        if end in path and route.method in ("PUT", "POST"):
            return examples
    return ()


def _bodies(server: FuzzServer) -> Mapping[str, Sequence[Any]]:
    return {
        "/state/{eventType}": _states(server),
        "/send/{eventType}": _messages(server),
        "/redact/": [{"reason": "x"}, {"redacts": server.event_id}],
        "/createRoom": _rooms(),
        "/account_data/": [{"x": 1}, {BOB: [server.room_id]}, {"ignored_users": {BOB: {}}}],
        "/tags/{tag}": [{"order": 0.5}, {}],
        "/profile/": [{"displayname": "A"}, {"avatar_url": "mxc://a/b"}, {"m.tz": "Europe/Paris"}],
        "/enabled": [{"enabled": True}],
        "/actions": [{"actions": ["notify", {"set_tweak": "sound", "value": "default"}]}],
        "/pushrules/": _push_rules(server),
        "/filter": _filters(server),
        "/keys/upload": [_device_keys()],
        "/keys/query": [{"device_keys": {ALICE: [], BOB: ["PHONE"]}, "timeout": 0}],
        "/keys/claim": [{"one_time_keys": {ALICE: {"PHONE": "signed_curve25519"}}, "timeout": 0}],
        "/sendToDevice/": [{"messages": {ALICE: {"PHONE": {"a": 1}}, REMOTE_USER: {"*": {"b": [None, 1]}}}}],
        "/receipt/": [{"thread_id": "main"}, {}],
        "/read_markers": [{"m.fully_read": server.event_id, "m.read": server.event_id}],
        "/typing/": [{"typing": True, "timeout": 5}],
        "/presence/": [{"presence": "online", "status_msg": "x"}],
        "/login": [_login("alice", "x"), {"type": "m.login.token", "token": "x"}],
        "/register": [{"auth": {"type": "m.login.dummy"}, "username": "new", "password": "long enough"}],
        "/directory/list/": [{"visibility": "public"}],
        "/directory/room/": [{"room_id": server.room_id}],
        "/publicRooms": [
            {"limit": 2, "filter": {"generic_search_term": "p", "room_types": [None, "m.space"]}},
            {"include_all_networks": False, "third_party_instance_id": "irc"},
        ],
        "/upgrade": [{"new_version": "11"}],
        "/invite": [{"user_id": BOB, "reason": "x"}],
        "/kick": [{"user_id": BOB, "reason": "x"}],
        "/ban": [{"user_id": GHOST}],
        "/unban": [{"user_id": GHOST}],
        "/get_missing_events/": [
            {"earliest_events": [], "latest_events": [server.event_id], "limit": 5, "min_depth": 0}
        ],
        "/key/v2/query": [{"server_keys": {HERE: {"ed25519:1": {"minimum_valid_until_ts": 5}}, THERE: {}}}],
    }


def _login(name: str, password: str) -> Any:
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": name},
        "password": password,
    }


def _rooms() -> Sequence[Any]:
    return [
        {
            "preset": "public_chat",
            "name": "x",
            "topic": "x",
            "invite": [BOB],
            "creation_content": {"m.federate": True, "type": "m.space", "additional_creators": [BOB]},
            "power_level_content_override": {"users": {BOB: 50}, "events": {"m.x": 5}, "notifications": {}},
            "initial_state": [
                {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1"}},
                {"type": "m.room.history_visibility", "content": {"history_visibility": "shared"}},
            ],
            "room_version": version,
        }
        for version in ("12", "11", "1")
    ]


def _states(server: FuzzServer) -> Sequence[Any]:
    return [
        {"name": "x"},
        {"membership": "join", "displayname": "x", "third_party_invite": {"signed": {"token": "x"}}},
        {"users": {BOB: 50}, "events": {"x": 1}, "ban": 50, "notifications": {"room": 5}},
        {"alias": ALIAS, "alt_aliases": [ALIAS]},
        {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": server.room_id}]},
        {"history_visibility": "joined"},
        {"allow": ["*"], "deny": ["bad.test"], "allow_ip_literals": True},
        {"via": [HERE], "order": "a", "suggested": True},
    ]


def _messages(server: FuzzServer) -> Sequence[Any]:
    relation = {"rel_type": "m.thread", "event_id": server.event_id, "m.in_reply_to": {"event_id": NAMELESS}}
    return [
        {"msgtype": "m.text", "body": "x", "m.relates_to": relation, "m.mentions": {"user_ids": [ALICE]}},
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": server.event_id, "key": "k"}},
        {
            "m.new_content": {"body": "y"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": server.event_id},
        },
        {"redacts": server.event_id, "reason": "x"},
    ]


def _push_rules(server: FuzzServer) -> Sequence[Any]:
    conditions = [
        {"kind": "event_match", "key": "content.body", "pattern": "x*"},
        {"kind": "event_property_is", "key": "type", "value": 5},
        {"kind": "event_property_contains", "key": "content.a", "value": "x"},
        {"kind": "room_member_count", "is": ">=2"},
        {"kind": "sender_notification_permission", "key": "room"},
        {"kind": "contains_display_name"},
    ]
    actions = ["notify", {"set_tweak": "highlight", "value": False}]
    return [{"actions": actions, "conditions": conditions}, {"actions": actions, "pattern": "a?b*"}]


def _filters(server: FuzzServer) -> Sequence[Any]:
    events = {"limit": 5, "types": ["m.*"], "not_types": ["x"], "senders": [ALICE], "not_senders": [BOB]}
    room = {**events, "lazy_load_members": True, "contains_url": False, "unread_thread_notifications": True}
    return [
        {
            "room": {"rooms": [server.room_id], "timeline": room, "state": room, "ephemeral": events},
            "presence": events,
            "account_data": events,
            "event_format": "federation",
            "event_fields": ["content.body", "type"],
        }
    ]


def _device_keys() -> Any:
    keys = {"curve25519:PHONE": "A" * 43, "ed25519:PHONE": "A" * 43}
    signatures = {ALICE: {"ed25519:PHONE": "A" * 86}}
    algorithms = ["m.olm.v1.curve25519-aes-sha2"]
    return {
        "device_keys": {
            "user_id": ALICE,
            "device_id": "PHONE",
            "algorithms": algorithms,
            "keys": keys,
            "signatures": signatures,
        },
        "one_time_keys": {"signed_curve25519:AAAA": {"key": "A" * 43, "signatures": signatures}},
        "fallback_keys": {
            "signed_curve25519:BBBB": {"key": "B" * 43, "fallback": True, "signatures": signatures}
        },
    }
