"""Requests to other servers: found, signed, sent, judged, with back-off.

Works on bytes and JSON; what the endpoints mean is in `client.py`, `handshakes.py` and `queries.py`.
Redirects are never followed: a signature is for one server.

Source: server-server-api.md, "Request Authentication".
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, frozen

from federation.backoff import Backoff
from federation.discovery import Discovery
from federation.failures import BadAnswer, NoAnswer, Refused, Unreachable
from federation.own_keys import Identity
from homeserver.clock import Clock
from homeserver.http.agent import Limits, OutboundAgent, OutboundRequest
from homeserver.http.answer_reader import OutboundAnswer
from homeserver.http.dialing import Place
from homeserver.http.outbound_errors import AnswerTooLarge, OutboundError, TimedOut
from protocol.canonical_json import JsonObject, JsonValue, decode_lax, encode
from protocol.errors import Forbidden, MatrixError
from protocol.identifiers import ServerName
from protocol.xmatrix import build_xmatrix

USER_AGENT = "Plait"
SMALL = 1024 * 1024
"""Bytes of an ordinary answer."""
MAX_RETRY_AFTER = 24 * 3600


@frozen
class ServerRequest:
    """A request to a server: `uri` is path and query as sent, `body` canonical JSON.

    `seconds` is how long an answer is waited for, None: as long as configured. `insist` asks once even while
    the server is left in peace: for what a user waits for.
    """

    destination: ServerName
    method: str
    uri: str
    body: bytes | None = None
    max_bytes: int = SMALL
    seconds: float | None = None
    insist: bool = False


def bytes_to_sign(request: ServerRequest, origin: ServerName) -> bytes:
    """Give the canonical JSON that the signature of a request covers, without parsing its body again."""
    fields = [
        b'"destination":' + encode(request.destination),
        b'"method":' + encode(request.method),
        b'"origin":' + encode(origin),
        b'"uri":' + encode(request.uri),
    ]
    if request.body is not None:
        fields.insert(0, b'"content":' + request.body)
    return b"{" + b",".join(fields) + b"}"


@define
class ServerRequests:
    """Sends requests to other servers."""

    identity: Identity
    agent: OutboundAgent
    discovery: Discovery
    backoff: Backoff
    clock: Clock
    allow_list: Collection[ServerName] | None = None
    """The only servers to talk with; None: all."""
    seconds: float = 30
    """How long an answer is waited for, where a request does not say."""

    async def signed(self, request: ServerRequest) -> JsonObject:
        """Send a signed request and give the JSON object of its answer; raises what `failures` has."""
        value = await self.signed_value(request)
        if not isinstance(value, dict):
            raise BadAnswer(request.destination, "not a JSON object")
        return value

    async def signed_value(self, request: ServerRequest) -> JsonValue:
        """Send a signed request and give the JSON value of its answer."""
        return _json(request.destination, await self.signed_bytes(request))

    async def signed_bytes(self, request: ServerRequest) -> bytes:
        """Send a signed request and give the body of its answer, which may be too large to read in one go."""
        signature = self.identity.key.sign_base64(bytes_to_sign(request, self.identity.server_name))
        header = build_xmatrix(
            origin=self.identity.server_name,
            destination=request.destination,
            key_id=self.identity.key.key_id,
            signature=signature,
        )
        return await self._send(request, {"Authorization": header.decode("ascii")})

    async def unsigned(self, request: ServerRequest) -> JsonObject:
        """Send a request without signature, as for keys, and give the JSON object of its answer."""
        value = _json(request.destination, await self._send(request, {}))
        if not isinstance(value, dict):
            raise BadAnswer(request.destination, "not a JSON object")
        return value

    async def _send(self, request: ServerRequest, headers: dict[str, str]) -> bytes:
        """Send once, keep the books of the back-off, and judge the answer."""
        server = request.destination
        if self.allow_list is not None and server not in self.allow_list:
            raise Forbidden(f"this server does not federate with {server}")
        if not request.insist:
            await self.backoff.check(server)
        began = self.clock.now_ms()
        try:
            answer = await self._reach(request, headers)
        except AnswerTooLarge:
            raise BadAnswer(server, "too large") from None
        except OutboundError as error:
            await self.backoff.failed(server, began)
            raise (
                NoAnswer(server) if isinstance(error, TimedOut) else Unreachable(server, str(error))
            ) from None
        if answer.status >= 500 or 300 <= answer.status < 400:
            await self.backoff.failed(server, began, _retry_after(answer))
        else:
            await self.backoff.succeeded(server)
        return _judge(server, answer)

    async def _reach(self, request: ServerRequest, headers: dict[str, str]) -> OutboundAnswer:
        """Find the server and try its places in turn."""
        located = await self.discovery.locate(request.destination)
        seconds = self.seconds if request.seconds is None else request.seconds
        limits = Limits(request.max_bytes, seconds)
        for place_number in range(len(located.places) - 1):
            try:
                return await self.agent.request(
                    _to_place(request, located.places[place_number], located.host_header, headers, limits)
                )
            except (AnswerTooLarge, TimedOut):
                raise
            except OutboundError:
                continue
        last = _to_place(request, located.places[-1], located.host_header, headers, limits)
        return await self.agent.request(last)


def _to_place(
    request: ServerRequest, place: Place, host: str, headers: dict[str, str], limits: Limits
) -> OutboundRequest:
    """Give the request as it goes to one of the places of a server."""
    body_headers = {} if request.body is None else {"Content-Type": "application/json"}
    return OutboundRequest(
        request.method,
        place,
        host,
        request.uri,
        {"User-Agent": USER_AGENT, **headers, **body_headers},
        limits,
        request.body,
    )


def _judge(server: ServerName, answer: OutboundAnswer) -> bytes:
    """Give the body of a good answer; raise Refused for any other."""
    if 200 <= answer.status < 300:
        return answer.body
    try:
        value = decode_lax(answer.body)
    except MatrixError:
        value = {}
    remote = dict(value) if isinstance(value, dict) else {}
    remote.setdefault("retry_after_ms", _retry_after(answer))
    raise Refused(server, answer.status, remote)


def _json(server: ServerName, body: bytes) -> JsonValue:
    """Read the body of an answer; raises BadAnswer."""
    try:
        return decode_lax(body)
    except MatrixError:
        raise BadAnswer(server, "not JSON") from None


def _retry_after(answer: OutboundAnswer) -> int:
    """Give the wait the server asks for (ms), 0 if none."""
    text = answer.headers.get("retry-after", "")
    return (
        min(int(text), MAX_RETRY_AFTER) * 1000 if text.isascii() and text.isdigit() and len(text) < 10 else 0
    )
