"""Keys of devices.

Source: client-server-api/modules/end_to_end_encryption.md.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from attrs import frozen

from client_api.paths import v3
from homeserver.devices.keys import DeviceKeys, Upload
from homeserver.http.calls import Call, Json, Reply
from homeserver.http.routing import RateClass, Route
from homeserver.sync.session import Session
from homeserver.sync.tokens import SyncToken, parse_sync_token
from protocol.errors import InvalidParam
from protocol.identifiers import parse_user_id

DEFAULT_MS = 10_000
MAX_MS = 60_000
MAX_USERS = 2_000


class UploadKeys(msgspec.Struct, frozen=True):
    """The body of an upload."""

    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] = {}
    fallback_keys: dict[str, Any] = {}


class QueryKeys(msgspec.Struct, frozen=True):
    """The body of a query: device IDs by user; none for all."""

    device_keys: dict[str, list[str]]
    timeout: int = DEFAULT_MS


class ClaimKeys(msgspec.Struct, frozen=True):
    """The body of a claim: algorithms by user and device."""

    one_time_keys: dict[str, dict[str, str]]
    timeout: int = DEFAULT_MS


class DeviceListChanges(Protocol):
    """Knows whose devices changed for a reader."""

    async def device_lists(self, session: Session, since: SyncToken) -> bytes:
        """Give the `device_lists` object of what changed since a token; raise UnknownPos."""
        ...


@frozen(eq=False)
class Keys:
    """What devices need to encrypt for each other."""

    keys: DeviceKeys
    lists: DeviceListChanges

    async def upload(self, call: Call[UploadKeys]) -> Reply:
        """POST /keys/upload."""
        asker, body = call.requester, call.body
        session = Session(asker.user_id, asker.user_nid, asker.device_id)
        upload = Upload(body.device_keys, body.one_time_keys, body.fallback_keys)
        counts = await self.keys.upload(session, upload)
        return {"one_time_key_counts": dict(counts)}

    async def query(self, call: Call[QueryKeys]) -> Reply:
        """POST /keys/query."""
        wanted = {parse_user_id(user): ids for user, ids in call.body.device_keys.items()}
        _check_count(len(wanted))
        return await self.keys.query_all(wanted, _seconds(call.body.timeout))

    async def claim(self, call: Call[ClaimKeys]) -> Reply:
        """POST /keys/claim."""
        wanted = {parse_user_id(user): by for user, by in call.body.one_time_keys.items()}
        _check_count(len(wanted))
        return await self.keys.claim_all(wanted, _seconds(call.body.timeout))

    async def changes(self, call: Call[None]) -> Reply:
        """GET /keys/changes: what `/sync` from there would tell of devices, up to the present at least."""
        asker, since = call.requester, parse_sync_token(call.query.required("from"))
        parse_sync_token(call.query.required("to"))
        return Json(
            await self.lists.device_lists(Session(asker.user_id, asker.user_nid, asker.device_id), since)
        )

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        writes = RateClass.WRITES
        upload = v3("/keys/upload", "/keys/upload/{deviceId}")
        return (
            Route("POST", upload, self.upload, body=UploadKeys, limit=writes),
            Route("POST", v3("/keys/query"), self.query, body=QueryKeys),
            Route("POST", v3("/keys/claim"), self.claim, body=ClaimKeys, limit=writes),
            Route("GET", v3("/keys/changes"), self.changes),
        )


def _check_count(users: int) -> None:
    if users > MAX_USERS:
        raise InvalidParam(f"more than {MAX_USERS} users")


def _seconds(timeout_ms: int) -> float:
    return max(0, min(timeout_ms, MAX_MS)) / 1000
