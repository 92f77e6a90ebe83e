"""How requests to other servers fail, and what a client may be told of it.

Each of these renders as 502 or 504 naming the server; a remote `errcode` or 401 never goes through by
itself. A caller that wants to pass a known refusal on asks `passed_on` for it.

Source: security C10; server-server-api.md, "make_join" ("the error should be passed through").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.errors import (
    BadGateway,
    Forbidden,
    GatewayTimeout,
    IncompatibleRoomVersion,
    InviteBlocked,
    MatrixError,
    NotFound,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
)
from protocol.identifiers import ServerName

MAX_TOLD = 200
"""Characters of a remote sentence that are repeated."""


class Unreachable(BadGateway):
    """The server cannot be reached, or has failed so often that it is left in peace for now."""

    def __init__(self, server: ServerName, reason: str) -> None:
        """Name the server, and say why in a few words."""
        super().__init__(f"{server} cannot be reached: {reason}")
        self.server = server


class NoAnswer(GatewayTimeout):
    """The server did not answer in time."""

    def __init__(self, server: ServerName) -> None:
        """Name the server."""
        super().__init__(f"{server} did not answer in time")
        self.server = server


class BadAnswer(BadGateway):
    """The server answered with something that breaks the protocol."""

    def __init__(self, server: ServerName, reason: str) -> None:
        """Name the server, and say what is wrong."""
        super().__init__(f"{server} gave a bad answer: {reason}")
        self.server = server


class Refused(BadGateway):
    """The server answered with an error. `remote` is its JSON body, untrusted, empty if it sent none."""

    def __init__(self, server: ServerName, http_status: int, remote: Mapping[str, Any]) -> None:
        """Name the server and keep what it said."""
        super().__init__(f"{server} refused the request with status {http_status}")
        self.server = server
        self.http_status = http_status
        self.remote = remote

    @property
    def remote_errcode(self) -> str:
        """Give the remote `errcode`, or an empty string."""
        errcode = self.remote.get("errcode")
        return errcode if isinstance(errcode, str) else ""


_PASSED_ON: Mapping[tuple[int, str], type[MatrixError]] = {
    (400, "M_UNABLE_TO_AUTHORISE_JOIN"): UnableToAuthoriseJoin,
    (400, "M_UNABLE_TO_GRANT_JOIN"): UnableToGrantJoin,
    (400, "M_INCOMPATIBLE_ROOM_VERSION"): IncompatibleRoomVersion,
    (403, "M_FORBIDDEN"): Forbidden,
    (403, "M_INVITE_BLOCKED"): InviteBlocked,
    (404, "M_NOT_FOUND"): NotFound,
}


def passed_on(refused: Refused) -> MatrixError:
    """Give the error a client may be told for a refusal: a known one by its own name, any other as 502."""
    kind = _PASSED_ON.get((refused.http_status, refused.remote_errcode))
    if kind is None:
        return refused
    told = refused.remote.get("error")
    sentence = told if isinstance(told, str) else "the request was refused"
    plain = "".join(char for char in sentence[:MAX_TOLD] if char.isprintable())
    version = refused.remote.get("room_version")
    if kind is IncompatibleRoomVersion and isinstance(version, str):
        return kind(f"{refused.server}: {plain}", room_version=version[:MAX_TOLD])
    return kind(f"{refused.server}: {plain}")
