"""The calls of the make/send handshakes and of invites: one request each, its answer read and checked.

Source: server-server-api.md, "Joining Rooms", "Knocking upon a room", "Inviting to a room", "Leaving Rooms
(Rejecting Invites)".
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.client import LARGE
from federation.failures import BadAnswer
from federation.large_answers import LargeAnswer
from federation.paths import V1, V2, path, with_query
from federation.pdus import PduChecker
from federation.requests import SMALL, ServerRequest, ServerRequests
from federation.templates import Template, Wish, read_template
from protocol.canonical_json import JsonObject, encode
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import ServerName, parse_server_name
from protocol.room_versions import ROOM_VERSIONS, RoomVersion

HANDSHAKE_SECONDS = 30
SEND_JOIN_SECONDS = 180
MAX_SERVERS = 20_000
"""Servers in the room that are read from the answer to a join."""
MAX_STRIPPED = 100
"""Events of stripped state that are read."""

_VERSIONS = [("ver", version) for version in ROOM_VERSIONS]


@frozen
class JoinAnswer:
    """What a server in the room says on our join: the state before it, all events checked."""

    join: Event
    """The join as all sign it."""
    state: Sequence[Event]
    auth_chain: Sequence[Event]
    """What of the auth chain of the state is not in it."""
    servers: Sequence[ServerName]


@frozen
class Handshakes:
    """Sends the requests of handshakes."""

    requests: ServerRequests
    checker: PduChecker

    async def make(self, server: ServerName, wish: Wish) -> Template:
        """Ask for the template of a membership event: `make_join`, `make_knock` or `make_leave`."""
        membership = wish.content["membership"]
        uri = path(f"{V1}/make_{membership}", wish.room_id, wish.user_id)
        if membership != "leave":
            uri = with_query(uri, _VERSIONS)
        answer = await self.requests.signed(
            ServerRequest(server, "GET", uri, seconds=HANDSHAKE_SECONDS, insist=True)
        )
        return read_template(server, answer, wish)

    async def send_join(self, server: ServerName, join: Event) -> JoinAnswer:
        """Hand our join to a server in the room, and read the room from its answer."""
        uri = with_query(path(f"{V2}/send_join", join.room_id, join.event_id), [("omit_members", "false")])
        request = ServerRequest(server, "PUT", uri, join.raw, LARGE, SEND_JOIN_SECONDS, insist=True)
        body = await self.requests.signed_bytes(request)
        answer = LargeAnswer.of(server, body, self.requests.clock)
        if answer.read("members_omitted") is True:
            raise BadAnswer(server, "a room without its members, which were asked for")
        signed = await self._signed_join(server, answer.read("event"), join)
        state, chain = await answer.listed("state"), await answer.listed("auth_chain")
        known = frozenset(state)
        return JoinAnswer(
            signed,
            await self._checked(state, join),
            await self._checked([raw for raw in chain if raw not in known], join),
            _servers(answer.read("servers_in_room")),
        )

    async def send_leave(self, server: ServerName, leave: Event) -> None:
        """Hand our leave to a server in the room."""
        await self._put(server, path(f"{V2}/send_leave", leave.room_id, leave.event_id), leave.raw)

    async def send_knock(self, server: ServerName, knock: Event) -> list[JsonObject]:
        """Hand our knock to a server in the room; gives the state of the room it shows, unchecked JSON."""
        answer = await self._put(server, path(f"{V1}/send_knock", knock.room_id, knock.event_id), knock.raw)
        shown = answer.get("knock_room_state")
        return (
            [one for one in shown[:MAX_STRIPPED] if isinstance(one, dict)] if isinstance(shown, list) else []
        )

    async def invite(self, server: ServerName, invite: Event, state: Sequence[Event]) -> Event:
        """Have the invited user's server sign an invite, by the second version of the call."""
        body = b'{"event":%b,"invite_room_state":[%b],"room_version":%b}' % (
            invite.raw,
            b",".join(event.raw for event in state),
            encode(invite.version.id),
        )
        answer = await self._put(server, path(f"{V2}/invite", invite.room_id, invite.event_id), body)
        return await self._countersigned(server, answer.get("event"), invite)

    async def invite_old(self, server: ServerName, invite: Event, state: Sequence[Event]) -> Event:
        """Have an old server sign an invite, by the first version of the call; for room versions 1 and 2."""
        uri = path(f"{V1}/invite", invite.room_id, invite.event_id)
        shown = b'{"invite_room_state":[%b]}' % b",".join(event.raw for event in state)
        body = b'%b,"unsigned":%b}' % (invite.raw[:-1], shown)  # canonical: our events have no key behind it
        answer = await self.requests.signed_value(
            ServerRequest(server, "PUT", uri, body, seconds=HANDSHAKE_SECONDS, insist=True)
        )
        told = answer[1] if isinstance(answer, list) and len(answer) == 2 else None
        return await self._countersigned(
            server, told.get("event") if isinstance(told, dict) else None, invite
        )

    async def _put(
        self,
        server: ServerName,
        uri: str,
        body: bytes,
    ) -> JsonObject:
        return await self.requests.signed(
            ServerRequest(server, "PUT", uri, body, SMALL, HANDSHAKE_SECONDS, insist=True)
        )

    async def _checked(self, raw: Sequence[bytes], join: Event) -> list[Event]:
        return await self.checker.check_room(raw, join.version, join.room_id, backfill=True)

    async def _signed_join(self, server: ServerName, raw: object, join: Event) -> Event:
        """Give the join with the authorising server's signature, or our own where none is needed."""
        if raw is None and "join_authorised_via_users_server" not in join.content:
            return join
        return await self._countersigned(server, raw, join)

    async def _countersigned(self, server: ServerName, raw: object, ours: Event) -> Event:
        """Give our event as the other server signed it; anything else than our event is refused."""
        try:
            event = await self.checker.check(raw, ours.version)
        except MatrixError as error:
            raise BadAnswer(server, f"an event that does not pass: {error.error}") from None
        if event.event_id != ours.event_id or event.room_id != ours.room_id or event.hash_mismatch:
            raise BadAnswer(server, "another event than ours")
        return event


def _servers(value: object) -> list[ServerName]:
    """Read the servers said to be in the room."""
    found: dict[ServerName, None] = {}
    for item in value[:MAX_SERVERS] if isinstance(value, list) else ():
        try:
            found[parse_server_name(item)] = None
        except MatrixError:
            continue
    return list(found)


def supported(version: RoomVersion) -> bool:
    """Tell whether this server knows the room version."""
    return version.id in ROOM_VERSIONS
