"""User-interactive authentication: proving oneself once more for one operation, in stages.

A session is good for one operation alone: user, device, method, path and body are bound in by a keyed hash,
so nothing of the body is kept. It is used up by the operation and expires. A stage counts only if it is
part of a flow offered for this very operation, and is checked for this very account.

Source: client-server-api/_index.md, "User-Interactive Authentication API"; security L2, L8.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from homeserver.accounts.token_key import TokenKey
from protocol.canonical_json import JsonObject, decode_own, dumps, encode_lax
from protocol.errors import BadJson, MatrixError, NotFound
from storage import registration_tokens
from storage.database import Database
from storage.registration_tokens import UiaRow

LIFE_MS = 15 * 60_000
DUMMY = "m.login.dummy"
MAX_SESSION = 64

Stage = Callable[[JsonObject, int], Awaitable[str | None]]
"""Judges the `auth` of a request at a time: gives what it proves, to be kept (a text or None), or raises a
`MatrixError`, after which the client may try again."""


@frozen(eq=False)
class Challenge:
    """What must be proved, and for what.

    `operation` binds it (see `bind_operation`); `flows` are offered, each a sequence of stages; `stages`
    judge them. A stage that is in no flow cannot be completed.
    """

    operation: bytes
    flows: Sequence[Sequence[str]]
    stages: Mapping[str, Stage]
    params: JsonObject = field(factory=dict)


class AuthenticationNeeded(MatrixError):
    """The operation needs authentication, or more of it; tells flows, session and what is done."""

    status = 401

    def __init__(self, challenge: Challenge, session: str, completed: Sequence[str], failure: Any) -> None:
        """Tell how to go on; `failure` is the `MatrixError` of the stage that was just tried, or None."""
        super().__init__("Authentication is needed")
        self._content: dict[str, object] = {
            "flows": [{"stages": list(flow)} for flow in challenge.flows],
            "params": challenge.params,
            "session": session,
        }
        if completed:
            self._content["completed"] = list(completed)
        if failure is not None:
            self._content |= failure.to_json()

    def to_json(self) -> dict[str, object]:
        """Give the JSON object of the answer."""
        return self._content


class InteractiveAuth:
    """Keeps authentication under way."""

    def __init__(self, database: Database, key: TokenKey) -> None:
        """Keep sessions in `database`, bound by `key`."""
        self._database = database
        self._key = key

    def bind_operation(self, *parts: str | None, body: JsonObject) -> bytes:
        """Give what an authentication is good for: `parts` name the operation; `auth` is left out."""
        content = encode_lax({name: value for name, value in body.items() if name != "auth"})
        return self._key.bind(*((part or "").encode("utf-8", "replace") for part in parts), content)

    async def require(
        self, challenge: Challenge, auth: JsonObject | None, now: int
    ) -> Mapping[str, str | None]:
        """See that a flow is completed, and use the session up; give what each stage proved.

        Raises:
            AuthenticationNeeded: it is not completed yet.
            BadJson: `auth` has a wrong shape.
        """
        if auth is None:
            raise await self._begin(challenge, {}, None, now)
        session, kind = auth.get("session"), auth.get("type")
        if not isinstance(session, str | None) or not isinstance(kind, str | None):
            raise BadJson("auth: `session` and `type` must be strings")
        if session is None:
            return await self._without_session(challenge, auth, kind, now)
        row = await self._find(session, now)
        if row is None or not secrets.compare_digest(row.operation, challenge.operation):
            raise await self._begin(challenge, {}, None, now)
        completed, failure = await self._try(challenge, decode_own(row.completed), auth, kind, now)
        if _is_done(challenge, completed):
            if not await self._database.write(registration_tokens.end_uia, session):
                raise await self._begin(challenge, {}, None, now)
            return completed
        if failure is None:
            await self._database.write(
                registration_tokens.complete_uia, session, row.completed, dumps(completed)
            )
        raise AuthenticationNeeded(challenge, session, list(completed), failure)

    async def _without_session(
        self, challenge: Challenge, auth: JsonObject, kind: str | None, now: int
    ) -> Mapping[str, str | None]:
        """Take a stage that comes with the first request, which may complete a flow of one stage."""
        completed, failure = await self._try(challenge, {}, auth, kind, now)
        if _is_done(challenge, completed):
            return completed
        raise await self._begin(challenge, completed, failure, now)

    async def _try(
        self,
        challenge: Challenge,
        done: dict[str, str | None],
        auth: JsonObject,
        kind: str | None,
        now: int,
    ) -> tuple[dict[str, str | None], MatrixError | None]:
        """Judge one stage; give all that is completed then, and why this one is not."""
        if kind is None or kind in done or not any(kind in flow for flow in challenge.flows):
            return done, None
        try:
            proof = await challenge.stages[kind](auth, now)
        except MatrixError as error:
            return done, error
        return done | {kind: proof}, None

    async def _begin(
        self,
        challenge: Challenge,
        completed: Mapping[str, str | None],
        failure: MatrixError | None,
        now: int,
    ) -> AuthenticationNeeded:
        session = secrets.token_urlsafe(24)
        row = UiaRow(challenge.operation, dumps(dict(completed)))
        await self._database.write(registration_tokens.begin_uia, session, row, now + LIFE_MS)
        return AuthenticationNeeded(challenge, session, list(completed), failure)

    async def _find(self, session: str, now: int) -> UiaRow | None:
        if len(session) > MAX_SESSION:
            return None
        return await self._database.read(registration_tokens.find_uia, session, now)

    async def complete_outside(self, session: str, kind: str, proof: str | None, now: int) -> None:
        """Note a stage that was completed on a page of ours; raises NotFound for a session that is over."""
        row = await self._find(session, now)
        if row is None:
            raise NotFound("This authentication is over; go back and try again")
        completed = decode_own(row.completed) | {kind: proof}
        await self._database.write(registration_tokens.complete_uia, session, row.completed, dumps(completed))


def _is_done(challenge: Challenge, completed: Mapping[str, str | None]) -> bool:
    """Tell whether one of the offered flows is completed; a flow without stages never is."""
    return any(flow and all(stage in completed for stage in flow) for flow in challenge.flows)


async def dummy_stage(auth: JsonObject, now: int) -> None:
    """Complete `m.login.dummy`, which proves nothing."""
