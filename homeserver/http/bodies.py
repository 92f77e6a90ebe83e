"""Request bodies: bytes in, typed values out, and errors that name the field.

Source: client-server-api/_index.md, "Standard error response"; security D1.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec

from protocol.canonical_json import check_depth, decode_client
from protocol.errors import BadJson, InvalidParam, MissingParam, NotJson
from protocol.limits import MAX_CLIENT_DEPTH

_MISSING = re.compile(r"Object missing required field `([^`]*)`(?: - at `\$?\.?([^`]*)`)?")
_WRONG = re.compile(r"(.*?)(?: - at `\$?\.?([^`]*)`)?", re.DOTALL)


def decode_body(kind: Any, raw: bytes) -> Any:
    """Decode a body as a route's `body` declares it; empty bytes count as `{}` for a struct.

    Raises:
        NotJson: not JSON, or nothing where an object of any content is wanted.
        BadJson: a field has a wrong type or shape, or the JSON nests too deep.
        MissingParam: a required field is missing.
    """
    if kind is None:
        return None
    if kind is bytes:
        return raw
    if kind is dict:
        return _decode_object(raw)
    return decode_as(kind, raw or b"{}")


def decode_as(kind: Any, raw: bytes) -> Any:
    """Decode JSON as a type that msgspec knows; errors as for `decode_body`."""
    check_depth(raw, MAX_CLIENT_DEPTH)
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(f"The body is not JSON: {error}") from None
    except RecursionError:
        raise BadJson("The JSON nests too deep") from None


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _decode_object(raw: bytes) -> dict[str, Any]:
    if not raw:
        raise NotJson("The body is empty; a JSON object is wanted")
    value = decode_client(raw)
    if not isinstance(value, dict):
        raise BadJson("The body must be a JSON object")
    return value


def _explain(message: str) -> BadJson | MissingParam | InvalidParam:
    """Say what msgspec says, with the field first."""
    missing = _MISSING.fullmatch(message)
    if missing is not None:
        name, where = missing.groups()
        return MissingParam(f"The field {where + '.' if where else ''}{name} is missing")
    wrong = _WRONG.fullmatch(message)
    what, where = wrong.groups() if wrong is not None else (message, None)
    what = what[:1].lower() + what[1:]
    return BadJson(f"The field {where}: {what}" if where else f"The body: {what}")
