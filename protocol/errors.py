"""Errors that carry their wire form.

One base, `MatrixError`; a subclass sets `errcode` and `status`. Whoever raises says what is wrong in
a sentence that names the field; whoever renders needs no look-up.

Source: client-server-api/_index.md, "Standard error response".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class MatrixError(Exception):
    """An error to be told to the peer as `{"errcode", "error", …extra}` with an HTTP status."""

    errcode: ClassVar[str] = "M_UNKNOWN"
    status: ClassVar[int] = 400

    def __init__(self, error: str, **extra: object) -> None:
        """Say what is wrong in `error`; `extra` fields join the JSON answer."""
        super().__init__(error)
        self.error = error
        self.extra: Mapping[str, object] = extra

    def to_json(self) -> dict[str, object]:
        """Give the JSON object of the answer."""
        return {"errcode": self.errcode, "error": self.error, **self.extra}


class NotJson(MatrixError):
    """The body is not JSON at all."""

    errcode = "M_NOT_JSON"


class BadJson(MatrixError):
    """The body is JSON, but a field has a wrong type, shape or range."""

    errcode = "M_BAD_JSON"


class MissingParam(MatrixError):
    """A required parameter is missing."""

    errcode = "M_MISSING_PARAM"


class InvalidParam(MatrixError):
    """A parameter has a value that is not allowed."""

    errcode = "M_INVALID_PARAM"


class TooLarge(MatrixError):
    """The request or event is too large."""

    errcode = "M_TOO_LARGE"
    status = 413


class EventTooLarge(TooLarge):
    """An event breaks a size limit; clients expect 400 or 413 here, events are refused with 400."""

    status = 400


class Forbidden(MatrixError):
    """The authenticated party may not do this."""

    errcode = "M_FORBIDDEN"
    status = 403


class NotFound(MatrixError):
    """There is no such thing, or the asker may not know of it."""

    errcode = "M_NOT_FOUND"
    status = 404


class Unrecognized(MatrixError):
    """No endpoint has this path."""

    errcode = "M_UNRECOGNIZED"
    status = 404


class MethodNotAllowed(Unrecognized):
    """The path exists, but not with this method."""

    status = 405


class MissingToken(MatrixError):
    """No access token came with the request."""

    errcode = "M_MISSING_TOKEN"
    status = 401


class UnknownToken(MatrixError):
    """The access token is unknown, revoked or expired; `soft_logout` tells which."""

    errcode = "M_UNKNOWN_TOKEN"
    status = 401


class Unauthorized(MatrixError):
    """A server's request bears no valid signature."""

    errcode = "M_UNAUTHORIZED"
    status = 401


class LimitExceeded(MatrixError):
    """Too many requests; `retry_after_ms` says when to come again."""

    errcode = "M_LIMIT_EXCEEDED"
    status = 429

    def __init__(self, retry_after_ms: int, error: str = "Too many requests") -> None:
        """Tell the wait in milliseconds."""
        super().__init__(error, retry_after_ms=retry_after_ms)
        self.retry_after_ms = retry_after_ms


class UserInUse(MatrixError):
    """The user name is taken."""

    errcode = "M_USER_IN_USE"


class InvalidUsername(MatrixError):
    """The user name is outside the grammar."""

    errcode = "M_INVALID_USERNAME"


class WeakPassword(MatrixError):
    """The password does not meet the policy."""

    errcode = "M_WEAK_PASSWORD"


class UserDeactivated(MatrixError):
    """The account is deactivated."""

    errcode = "M_USER_DEACTIVATED"
    status = 403


class UserSuspended(MatrixError):
    """The account is suspended and may not act like this."""

    errcode = "M_USER_SUSPENDED"
    status = 403


class UserLocked(MatrixError):
    """The account is locked; the client keeps its state and may come again."""

    errcode = "M_USER_LOCKED"
    status = 401

    def __init__(self, error: str = "This account is locked") -> None:
        """Tell the client not to throw its state away."""
        super().__init__(error, soft_logout=True)


class GuestAccessForbidden(MatrixError):
    """Guests may not do this."""

    errcode = "M_GUEST_ACCESS_FORBIDDEN"
    status = 403


class ProfileTooLarge(MatrixError):
    """The profile would be larger than profiles may be."""

    errcode = "M_PROFILE_TOO_LARGE"


class KeyTooLarge(MatrixError):
    """The name of a profile field is too long."""

    errcode = "M_KEY_TOO_LARGE"


class Exclusive(MatrixError):
    """The name lies in the exclusive namespace of an application service."""

    errcode = "M_EXCLUSIVE"


class RoomInUse(MatrixError):
    """The room alias is taken."""

    errcode = "M_ROOM_IN_USE"


class AliasTaken(MatrixError):
    """The alias that is to be made exists."""

    status = 409


class DuplicateAnnotation(MatrixError):
    """The sender has annotated the event in just this way already."""

    errcode = "M_DUPLICATE_ANNOTATION"


class InvalidRoomState(MatrixError):
    """The initial state of a new room breaks the rules."""

    errcode = "M_INVALID_ROOM_STATE"


class BadState(MatrixError):
    """The change does not fit the present state, such as unbanning a user who is not banned."""

    errcode = "M_BAD_STATE"
    status = 403


class BadAlias(MatrixError):
    """An alias of `m.room.canonical_alias` does not point at the room."""

    errcode = "M_BAD_ALIAS"


class UnsupportedRoomVersion(MatrixError):
    """This server does not know the room version."""

    errcode = "M_UNSUPPORTED_ROOM_VERSION"


class IncompatibleRoomVersion(MatrixError):
    """The asking server does not support the version of the room."""

    errcode = "M_INCOMPATIBLE_ROOM_VERSION"


class InviteBlocked(MatrixError):
    """The invited user takes no invites, or none of this sender."""

    errcode = "M_INVITE_BLOCKED"
    status = 403


class UnableToAuthoriseJoin(MatrixError):
    """This server cannot tell whether the conditions of a restricted join hold."""

    errcode = "M_UNABLE_TO_AUTHORISE_JOIN"


class UnableToGrantJoin(MatrixError):
    """The conditions hold, but no user here may authorise the join."""

    errcode = "M_UNABLE_TO_GRANT_JOIN"


class UnknownPos(MatrixError):
    """The sync position is of another epoch or beyond the feed: start afresh."""

    errcode = "M_UNKNOWN_POS"


class BadGateway(MatrixError):
    """Another server answered with an error or nonsense; the sentence names it."""

    errcode = "M_UNKNOWN"
    status = 502


class GatewayTimeout(MatrixError):
    """Another server did not answer in time."""

    errcode = "M_UNKNOWN"
    status = 504


class Unavailable(MatrixError):
    """The server cannot serve this now (database gone, queue full); come again."""

    errcode = "M_LIMIT_EXCEEDED"
    status = 503

    def __init__(self, error: str, retry_after_ms: int = 1000) -> None:
        """Tell why, and the wait in milliseconds."""
        super().__init__(error, retry_after_ms=retry_after_ms)
