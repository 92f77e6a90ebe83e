"""Policy servers: which one a room names, and whether it recommends an event.

A room names a policy server and its key in its state; that server puts its signature beside those of the
sender's server. What an event without it is worth is decided elsewhere: the rules do not look at it.

Source: server-server-api.md, "Policy Servers"; data/event-schemas/schema/m.room.policy.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve, frozen

from protocol.errors import EventTooLarge, MatrixError
from protocol.events import Event
from protocol.hashes import encode_pdu, essential_bytes
from protocol.identifiers import KeyID, ServerName, StateKey
from protocol.limits import MAX_EVENT_BYTES
from protocol.signing import (
    SIGNATURE_BYTES,
    InvalidSignature,
    VerifyKey,
    add_signature,
    decode_base64,
    find_signature,
)

POLICY: Final[StateKey] = ("m.room.policy", "")
POLICY_KEY_ID: Final = KeyID("ed25519:policy_server")


@frozen
class PolicyServer:
    """The policy server that a room names."""

    name: ServerName
    key: VerifyKey | None
    """None where the room names what is no key: then no signature counts."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> PolicyServer | None:
        """Read the content of `m.room.policy`; None if it names no policy server."""
        via, keys = content.get("via"), content.get("public_keys")
        text = keys.get("ed25519") if isinstance(keys, dict) else None
        if not isinstance(via, str) or not isinstance(text, str):
            return None
        try:
            return cls(ServerName(via), VerifyKey(decode_base64(text)))
        except MatrixError:
            return cls(ServerName(via), None)

    def recommends(self, event: Event) -> bool:
        """Tell whether the event bears this server's signature."""
        if self.key is None:
            return False
        try:
            signature = find_signature(event.pdu, self.name, POLICY_KEY_ID)
            self.key.verify(signature, essential_bytes(event.pdu, event.version))
        except InvalidSignature:
            return False
        return True

    def signature_on(self, event: Event) -> str:
        """Give this server's signature, as it is written in JSON, on an event that bears it."""
        signature: str = event.pdu["signatures"][self.name][POLICY_KEY_ID]
        return signature

    def signed(self, event: Event, signature: str) -> Event:
        """Give the event with this server's signature, as it is written in JSON, beside the others.

        Raises InvalidSignature if it is wrong, EventTooLarge if the event has no room for it.
        """
        try:
            raw = decode_base64(signature)
        except MatrixError:
            raise InvalidSignature("The policy server's signature is not base64") from None
        if self.key is None or len(raw) != SIGNATURE_BYTES:
            raise InvalidSignature("The policy server's signature is none")
        pdu = event.pdu
        self.key.verify(raw, essential_bytes(pdu, event.version))
        encoded = encode_pdu(add_signature(pdu, self.name, POLICY_KEY_ID, raw), event.version)
        if len(encoded) > MAX_EVENT_BYTES:
            raise EventTooLarge("The event has no room for the policy server's signature")
        return evolve(event, raw=encoded)


def needs_policy(event_type: str, state_key: str | None) -> bool:
    """Tell whether a policy server is asked about such an event: all but the one that names it."""
    return (event_type, state_key) != POLICY
