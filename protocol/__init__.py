"""The sans-I/O heart of Plait: everything of the Matrix protocol that is pure computation.

Identifiers, canonical JSON, event formats by room version, hashes, signatures, redaction,
authorisation rules, state resolution, push-rule evaluation, server ACLs and the frames and
state machine of the WebSocket session. Functions take values and return values or raise
errors that carry their wire form.

Nothing here reads a clock, rolls dice, opens a file or knows Twisted: what such a thing would
supply is an argument. Imports nothing else of ours. `spec.md` beside this file is the normative
text for implementers.
"""
