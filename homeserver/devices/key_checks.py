"""The form of keys that devices upload: what has another is refused, here and before it is sent on. Pure.

Source: client-server-api/modules/end_to_end_encryption.md, "Key algorithms".
"""

from __future__ import annotations

import re
from typing import Any, Final

from protocol.canonical_json import JsonObject, encode
from protocol.errors import BadJson, InvalidParam
from protocol.identifiers import DeviceID, UserID

MAX_KEY_BYTES: Final = 4_096
MAX_DEVICE_KEYS_BYTES: Final = 16_384
MAX_ALGORITHMS: Final = 32
_KEY_ID: Final = re.compile(r"[!-9;-~]{1,128}:[!-~]{1,126}")
_SIGNED: Final = "signed_curve25519"
_PLAIN: Final = "curve25519"


def check_device_keys(keys: JsonObject, user_id: UserID, device_id: DeviceID) -> bytes:
    """Check the identity keys of a device, and give their canonical JSON.

    Raises:
        BadJson: a field is missing or of a wrong type.
        InvalidParam: they are another device's.
    """
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id:
        raise InvalidParam("device_keys: user_id and device_id must be the uploading device's")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not _are_texts(algorithms) or len(algorithms) > MAX_ALGORITHMS:
        raise BadJson("device_keys.algorithms: must be a list of strings")
    named = keys.get("keys")
    if not isinstance(named, dict) or not named:
        raise BadJson("device_keys.keys: must be an object")
    for key_id, key in named.items():
        if not isinstance(key, str) or not key_id.endswith(f":{device_id}"):
            raise BadJson(f"device_keys.keys: {key_id[:80]} is not a key of this device")
    _check_signatures(keys.get("signatures"), "device_keys.signatures")
    bare = {name: value for name, value in keys.items() if name != "unsigned"}
    raw = encode(bare)
    if len(raw) > MAX_DEVICE_KEYS_BYTES:
        raise BadJson(f"device_keys: more than {MAX_DEVICE_KEYS_BYTES} bytes")
    return raw


def check_key(key_id: str, key: object, where: str) -> tuple[str, str, bytes]:
    """Check a one-time or fallback key, and give algorithm, ID and canonical JSON.

    Raises:
        BadJson: the ID or the key has not the form of its algorithm.
    """
    algorithm, _, name = key_id.partition(":")
    if _KEY_ID.fullmatch(key_id) is None:
        raise BadJson(f"{where}: {key_id[:80]} must be of the form algorithm:id")
    if algorithm == _PLAIN:
        good = isinstance(key, str)
    else:
        good = isinstance(key, dict) and isinstance(key.get("key"), str)
    if not good:
        raise BadJson(f"{where}: the key {key_id[:80]} has a wrong form")
    if algorithm == _SIGNED and isinstance(key, dict):
        _check_signatures(key.get("signatures"), f"{where}.{key_id[:80]}.signatures")
    raw = encode(key)
    if len(raw) > MAX_KEY_BYTES:
        raise BadJson(f"{where}: the key {key_id[:80]} has more than {MAX_KEY_BYTES} bytes")
    return algorithm, name, raw


def _check_signatures(signatures: object, where: str) -> None:
    well_formed = isinstance(signatures, dict) and all(
        isinstance(by_key, dict) and all(isinstance(text, str) for text in by_key.values())
        for by_key in signatures.values()
    )
    if not well_formed:
        raise BadJson(f"{where}: must be objects of strings by user")


def _are_texts(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items)
