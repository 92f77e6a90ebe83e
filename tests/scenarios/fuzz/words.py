"""The vocabulary of the fuzz: names that handlers read, texts that break them, bodies nobody wants."""

from __future__ import annotations

_NAMES = """
add_mutual accept access_token actions additional_creators algorithm algorithms alias aliases allow
allow_ip_literals alt_aliases auth avatar_url ban body conditions content creator deny device_id devices
displayname earliest_events edu_type edus enabled event event_fields event_format event_id events
events_default field filter format formatted_body from generic_search_term guest_access
history_visibility ids info invite invite_room_state is is_state join_authorised_via_users_server
join_rule key keys kick kind lazy_load_members latest_events limit m.federate m.in_reply_to m.mentions
m.new_content m.read m.relates_to m.room.member membership messages method minimum_valid_until_ts msgtype
name not_rooms not_senders notifications one_time_keys order origin origin_server_ts pattern pdus
predecessor presence prev_batch reason redacts rel_type replacement_room room room_id room_types
room_version rooms score_order search_term senders server_keys signatures signed since state
state_default state_key tags third_party_invite thread_id timeline timeout topic ts type types unsigned
url user user_id user_ids users users_default valid_until_ts value version via
"""
NAMES = tuple(_NAMES.split())
"""Names of fields that some handler reads."""
_FIELDS = """
access_token after before dir event_id field filter format from full_state include kind limit membership
not_membership minimum_valid_until_ts next_batch only order recurse rel_type room_alias server
server_name session set_presence since to token ts user_id username v ver via x
"""
FIELDS = tuple(_FIELDS.split())
"""Names of query fields."""
WORDS = (
    "",
    " ",
    ".",
    "..",
    "*",
    "@:",
    "!x",
    "#:",
    "$",
    "\x00",
    "a\x00b",
    "\ud800",
    "é" * 128,
    "🦜" * 64,
    "x" * 300,
    "1",
    "-1",
    "true",
    "join",
    "leave",
    "invite",
    "knock",
    "ban",
    "m.room.message",
    "m.room.member",
    "m.room.power_levels",
    "m.room.create",
    "m.room.redaction",
    "m.room.server_acl",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.encryption",
    "m.tag",
    "m.direct",
    "m.ignored_user_list",
    "m.push_rules",
    "m.fully_read",
    "m.read",
    "m.read.private",
    "m.thread",
    "m.annotation",
    "m.login.password",
    "m.login.dummy",
    "m.id.user",
    "displayname",
    "avatar_url",
    "override",
    "content",
    "room",
    ".m.rule.master",
    "../../x",
    "a/b",
    "a:b:c",
    "[::1]:99999",
    "12",
    "999",
    "PHONE",
    "ed25519:1",
    "curve25519:PHONE",
    "signed_curve25519:AAAA",
    "b",
    "f",
)
"""Texts of which some are no names, some name what is not here, and some break encodings."""
QUERY_WORDS = (
    "",
    "0",
    "-1",
    "1",
    "99999999999999999999",
    "1e9",
    "١",
    "b",
    "f",
    "join",
    "true",
    "%00",
    "%ED%A0%80",
    "%FF",
    "%",
    "+",
    "{}",
    "%7B%22room%22%3A5%7D",
    "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A-5%7D%7D%7D",
    "s1_1",
    "s99999999999999999999",
    "t1-1_0",
    "p",
    "m.room.message",
    "1_2_3_4_5",
    "é",
)
NOISE = (
    b"",
    b"null",
    b"[]",
    b'""',
    b"5",
    b"{",
    b"\xff\xfe{}",
    b'{"a":"\xed\xa0\x80"}',
    b'{"body":"\\ud800"}',
    b'{"\\ud800":1}',
    b'{"a":"\\u0000"}',
    b'{"a":NaN}',
    b'{"a":1e400}',
    b'{"limit":' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 70 + b"1" + b"}" * 70,
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b'{"a":"' + b"x" * 70_000 + b'"}',
    b"{" + b",".join(b'"%d":1' % number for number in range(3000)) + b"}",
    b'{"type":1,"type":"m.login.password"}',
)
"""Bodies that no endpoint wants."""
