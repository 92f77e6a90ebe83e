"""The server's signing key on disk: made once from the operating system's randomness, readable by its owner.

The file holds one key a line, `ed25519 NAME BASE64-OF-THE-SEED`; the first line signs, further lines
`ed25519 NAME BASE64-OF-THE-PUBLIC-KEY expired MILLISECONDS` are old keys that are still published.
"""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from homeserver.config.sample import write_private
from protocol.errors import MatrixError
from protocol.identifiers import KeyID
from protocol.signing import SigningKey, VerifyKey, decode_base64, encode_base64

_log = Logger()
_NAME_LETTERS = string.ascii_lowercase + string.digits


class BadKeyFile(Exception):
    """The file is there, but holds no keys; the message names file and line."""


@frozen
class ExpiredKey:
    """A key that signs no more; events it signed before `expired_ts` stay good."""

    key_id: KeyID
    key: VerifyKey
    expired_ts: int


@frozen
class KeyFile:
    """The keys of a server."""

    signing: SigningKey
    expired: tuple[ExpiredKey, ...] = ()


def load_or_make_keys(path: Path) -> KeyFile:
    """Read the keys, or make the first one.

    Raises:
        BadKeyFile: the file holds something else.
    """
    try:
        write_private(path, _new_line())
        _log.info("made a signing key: {path}", path=str(path))
    except FileExistsError:
        _warn_if_shown(path)
    text = path.read_bytes().decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadKeyFile(f"{path}: holds no key")
    signing = _signing_key(lines[0], f"{path}:1")
    expired = tuple(_expired_key(line, f"{path}:{number}") for number, line in enumerate(lines[1:], 2))
    return KeyFile(signing, expired)


def load_or_make_secret(path: Path, size: int = 32) -> bytes:
    """Read `size` secret bytes of this server's own, or make them.

    Raises:
        BadKeyFile: the file holds something else.
    """
    try:
        write_private(path, encode_base64(os.urandom(size)) + "\n")
    except FileExistsError:
        _warn_if_shown(path)
    try:
        found = decode_base64(path.read_text(encoding="utf-8").strip())
    except (MatrixError, ValueError):
        found = b""
    if len(found) != size:
        raise BadKeyFile(f"{path}: does not hold {size} bytes in base64")
    return found


def _warn_if_shown(path: Path) -> None:
    """Warn of a file that others than its owner can read or write."""
    if path.stat().st_mode & 0o077:
        _log.warn("{path} can be read by others than its owner: chmod 600 it", path=str(path))


def _new_line() -> str:
    name = "a_" + "".join(secrets.choice(_NAME_LETTERS) for _ in range(4))
    return f"ed25519 {name} {encode_base64(os.urandom(32))}\n"


def _signing_key(line: str, where: str) -> SigningKey:
    parts = line.split()
    if len(parts) != 3 or parts[0] != "ed25519":
        raise BadKeyFile(f"{where}: expected `ed25519 NAME SEED`")
    try:
        return SigningKey(decode_base64(parts[2]), KeyID(f"ed25519:{parts[1]}"))
    except (MatrixError, ValueError):
        raise BadKeyFile(f"{where}: the seed is not 32 bytes in base64") from None


def _expired_key(line: str, where: str) -> ExpiredKey:
    parts = line.split()
    if len(parts) != 5 or parts[0] != "ed25519" or parts[3] != "expired" or not parts[4].isdigit():
        raise BadKeyFile(f"{where}: expected `ed25519 NAME PUBLIC-KEY expired MILLISECONDS`")
    try:
        key = VerifyKey(decode_base64(parts[2]))
    except (MatrixError, ValueError):
        raise BadKeyFile(f"{where}: the public key is not 32 bytes in base64") from None
    return ExpiredKey(KeyID(f"ed25519:{parts[1]}"), key, int(parts[4]))
