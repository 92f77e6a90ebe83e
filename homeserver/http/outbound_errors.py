"""Why an outgoing request gave no answer. These never travel to a client; edges translate them."""

from __future__ import annotations


class OutboundError(Exception):
    """An outgoing request gave no usable answer."""


class CannotConnect(OutboundError):
    """The name does not resolve, no address answers, TLS fails, or the connection broke."""


class AddressRefused(OutboundError):
    """Every address of the target lies in the deny-list."""


class AnswerTooLarge(OutboundError):
    """The answer is larger than this kind of request allows."""


class TimedOut(OutboundError):
    """The deadline passed before the answer was complete."""
