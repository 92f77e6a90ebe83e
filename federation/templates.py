"""Building our own membership event from another server's template, trusting nothing but its hints.

Of a template only the place in the graph and the authorising user of a restricted join are taken, each
checked for its form; everything that is signed is built here. A template for something else than was
asked is refused.

Source: server-server-api.md, make_join, make_leave, make_knock ("MUST verify"); security F6.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.failures import BadAnswer
from federation.own_keys import Identity
from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import EventID, RoomID, ServerName, UserID, parse_event_id, parse_user_id, server_of
from protocol.limits import MAX_AUTH_EVENTS, MAX_DEPTH, MAX_PREV_EVENTS
from protocol.room_versions import RoomVersion, get_room_version

MEMBER = "m.room.member"
_OLDEST = "1"


@frozen
class Wish:
    """What a local user wants: a membership in a room, with the content of the member event."""

    room_id: RoomID
    user_id: UserID
    content: JsonObject
    """With `membership`."""


@frozen
class Template:
    """The hints of a server in the room: its version, and where the event would stand."""

    server: ServerName
    version: RoomVersion
    links: Links
    authorised_by: UserID | None


def read_template(server: ServerName, answer: JsonObject, wish: Wish) -> Template:
    """Read the answer to a make_ request.

    Raises BadAnswer if it is not for the event asked for, UnsupportedRoomVersion.
    """
    named = answer.get("room_version", _OLDEST)
    version = get_room_version(named if isinstance(named, str) else "")
    event = answer.get("event")
    if not isinstance(event, dict) or not isinstance(event.get("content"), dict):
        raise BadAnswer(server, "no template of an event")
    wanted = (MEMBER, wish.room_id, wish.user_id, wish.user_id, wish.content["membership"])
    given = tuple(event.get(name) for name in ("type", "room_id", "sender", "state_key"))
    if (*given, event["content"].get("membership")) != wanted:
        raise BadAnswer(server, "a template for another event than was asked for")
    return Template(server, version, _links(server, event, version), _authoriser(event["content"], version))


def build_from(template: Template, wish: Wish, identity: Identity, now: int) -> Event:
    """Build and sign the event that a user wishes, at the place the template hints at."""
    content = {key: value for key, value in wish.content.items() if key != "join_authorised_via_users_server"}
    if template.authorised_by is not None and content["membership"] == "join":
        content["join_authorised_via_users_server"] = template.authorised_by
    draft = EventDraft(wish.room_id, MEMBER, wish.user_id, content, state_key=wish.user_id)
    return build_event(
        draft, template.version, template.links, now=now, server_name=identity.server_name, key=identity.key
    )


def _links(server: ServerName, event: JsonObject, version: RoomVersion) -> Links:
    """Read parents, authority and depth."""
    hashes: dict[EventID, str] = {}
    prev_events = _references(server, event.get("prev_events"), MAX_PREV_EVENTS, version, hashes)
    auth_events = _references(server, event.get("auth_events"), MAX_AUTH_EVENTS, version, hashes)
    depth = event.get("depth")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0 or not prev_events:
        raise BadAnswer(server, "a template without a place in the room")
    return Links(prev_events, auth_events, min(depth, MAX_DEPTH), hashes)


def _references(
    server: ServerName, value: object, limit: int, version: RoomVersion, hashes: dict[EventID, str]
) -> tuple[EventID, ...]:
    """Read event IDs, in versions 1 and 2 with their hashes, which go into `hashes`."""
    if not isinstance(value, list) or len(value) > limit:
        raise BadAnswer(server, "a template with too many or no references")
    try:
        if not version.pairs_in_references:
            return tuple(parse_event_id(item) for item in value)
        return tuple(_pair(item, hashes) for item in value)
    except (MatrixError, LookupError, TypeError):
        raise BadAnswer(server, "a template whose references are no event IDs") from None


def _pair(item: Sequence[JsonObject], hashes: dict[EventID, str]) -> EventID:
    event_id = parse_event_id(item[0])
    sha256 = item[1].get("sha256") if isinstance(item[1], dict) else None
    if isinstance(sha256, str):
        hashes[event_id] = sha256[:64]
    return event_id


def _authoriser(content: JsonObject, version: RoomVersion) -> UserID | None:
    """Read who authorises a restricted join, where the version knows such joins."""
    named = content.get("join_authorised_via_users_server")
    if not version.restricted_join or named is None:
        return None
    try:
        return parse_user_id(named)
    except MatrixError:
        return None


def must_sign(event: Event) -> frozenset[ServerName]:
    """Give the servers besides the sender's that must sign a join."""
    named = event.content.get("join_authorised_via_users_server")
    return frozenset({server_of(named)} if isinstance(named, str) else ())
