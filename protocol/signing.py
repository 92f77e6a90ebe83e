"""Ed25519 keys, signatures on JSON objects, and the base64 that both are written in.

The arithmetic is libsodium's, by way of PyNaCl: docs/decisions/0006-libsodium.md.

Source: appendices.md, "Signing JSON" and "Unpadded Base64".
"""

from __future__ import annotations

import binascii

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from protocol.canonical_json import JsonObject, encode
from protocol.errors import BadJson, MatrixError, Unauthorized
from protocol.identifiers import KeyID, ServerName, parse_key_id

KEY_BYTES = 32
SIGNATURE_BYTES = 64
ALGORITHM = "ed25519"


class InvalidSignature(Unauthorized):
    """A signature that is needed is missing, malformed or wrong."""


def encode_base64(data: bytes) -> str:
    """Write bytes in unpadded base64."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_base64_urlsafe(data: bytes) -> str:
    """Write bytes in unpadded URL-safe base64."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URLSAFE).decode("ascii")


_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")


def decode_base64(text: object) -> bytes:
    """Read standard base64, with or without its padding.

    Raises BadJson for any other character, a wrong length, or bits that lie beyond the last byte: each
    byte string has one spelling.
    """
    if not isinstance(text, str):
        raise BadJson("Base64 must be a string")
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    try:
        data = binascii.a2b_base64(padded, strict_mode=True)
    except (binascii.Error, ValueError):
        raise BadJson("Not valid base64") from None
    if text not in (bare, padded) or encode_base64(data) != bare:
        raise BadJson("Not valid base64")
    return data


def decode_base64_lax(text: object) -> bytes:
    """Read base64 on events as other servers do: either alphabet, any padding, odd characters passed over.

    Who reads events more strictly than the rest of a room loses the room to anyone who writes one oddly.
    Raises BadJson for what nobody can read.
    """
    if not isinstance(text, str):
        raise BadJson("Base64 must be a string")
    try:
        raw = text.encode("ascii").translate(_TO_STANDARD)
        return binascii.a2b_base64(raw + b"=" * (-len(raw) % 4))
    except (binascii.Error, ValueError):
        raise BadJson("Not valid base64") from None


_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class VerifyKey:
    """The public half of an Ed25519 key."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        """Take the 32 bytes of the key; raises BadJson for any other length."""
        if len(raw) != KEY_BYTES:
            raise BadJson(f"An Ed25519 key has {KEY_BYTES} bytes")
        self._raw = raw

    def verify(self, signature: bytes, message: bytes) -> None:
        """See that `signature` is this key's on `message`; raises InvalidSignature.

        A key of small order signs nothing: it would sign whatever one likes.
        """
        if len(signature) != SIGNATURE_BYTES:  # the bytes are joined: a shorter one would eat of the message
            raise InvalidSignature(f"An Ed25519 signature has {SIGNATURE_BYTES} bytes")
        try:
            crypto_sign_open(signature + message, self._raw)
        except BadSignatureError:
            raise InvalidSignature("The signature is wrong") from None

    def __bytes__(self) -> bytes:
        """Give the 32 bytes of the key."""
        return self._raw

    def __eq__(self, other: object) -> bool:
        """Compare by the key's bytes."""
        return isinstance(other, VerifyKey) and self._raw == other._raw

    def __hash__(self) -> int:
        """Hash the key's bytes."""
        return hash(self._raw)

    def __repr__(self) -> str:
        """Show the public key."""
        return f"VerifyKey({encode_base64(self._raw)})"


class SigningKey:
    """An Ed25519 key that signs, with the ID under which its signatures are published."""

    __slots__ = ("_key", "key_id", "verify_key")

    key_id: KeyID
    verify_key: VerifyKey

    def __init__(self, seed: bytes, key_id: KeyID) -> None:
        """Take the 32 bytes of the seed, from the operating system's generator, and a key ID `ed25519:…`."""
        if len(seed) != KEY_BYTES:
            raise ValueError(f"an Ed25519 seed has {KEY_BYTES} bytes")
        if not parse_key_id(key_id).startswith(f"{ALGORITHM}:"):
            raise ValueError("the key ID of an Ed25519 key begins with ed25519:")
        public, self._key = crypto_sign_seed_keypair(seed)
        self.key_id = key_id
        self.verify_key = VerifyKey(public)

    def sign(self, message: bytes) -> bytes:
        """Give the 64 bytes of the signature on `message`."""
        return crypto_sign(message, self._key)[:SIGNATURE_BYTES]

    def sign_base64(self, message: bytes) -> str:
        """Give the signature on `message` as it is written in JSON."""
        return encode_base64(self.sign(message))

    def __repr__(self) -> str:
        """Name the key without its secret."""
        return f"SigningKey({self.key_id})"


def signed_part(obj: JsonObject) -> JsonObject:
    """Give what a signature on `obj` covers: all but `signatures` and `unsigned`."""
    return {key: value for key, value in obj.items() if key not in ("signatures", "unsigned")}


def add_signature(obj: JsonObject, server: ServerName, key_id: KeyID, signature: bytes) -> JsonObject:
    """Give `obj` with one more signature; what it already bears stays."""
    signatures = obj.get("signatures", {})
    mine = {**signatures.get(server, {}), key_id: encode_base64(signature)}
    return {**obj, "signatures": {**signatures, server: mine}}


def sign_json(obj: JsonObject, server: ServerName, key: SigningKey) -> JsonObject:
    """Give `obj` with the signature of `server` added; raises BadJson for what canonical JSON cannot hold."""
    return add_signature(obj, server, key.key_id, key.sign(encode(signed_part(obj))))


def verify_json(obj: JsonObject, server: ServerName, key_id: KeyID, verify_key: VerifyKey) -> None:
    """See that `obj` bears the signature of `server` by that key; raises InvalidSignature."""
    signature = find_signature(obj, server, key_id)
    try:
        message = encode(signed_part(obj))
    except MatrixError as error:
        raise InvalidSignature(f"What is signed is not canonical JSON: {error.error}") from None
    verify_key.verify(signature, message)


def find_signature(obj: JsonObject, server: ServerName, key_id: KeyID) -> bytes:
    """Give the 64 bytes of the signature that `obj` bears; raises InvalidSignature if it is none."""
    signatures = obj.get("signatures")
    of_server = signatures.get(server) if isinstance(signatures, dict) else None
    text = of_server.get(key_id) if isinstance(of_server, dict) else None
    if text is None:
        raise InvalidSignature(f"There is no signature of {server} by {key_id}")
    try:
        signature = decode_base64(text)
    except BadJson:
        raise InvalidSignature(f"The signature of {server} is not base64") from None
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature(f"The signature of {server} has not {SIGNATURE_BYTES} bytes")
    return signature
