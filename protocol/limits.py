"""Bounds that the Matrix specification sets, and those we set where it is silent.

Limits that an administrator may change are in the configuration, not here.

Source: client-server-api/_index.md, "Size limits"; server-server-api.md, "Transactions".
"""

from __future__ import annotations

MAX_INTEGER = 2**53 - 1
"""The largest integer of canonical JSON; the smallest is its negative."""
MAX_EVENT_BYTES = 65_536
"""Bytes of a whole event in canonical JSON, signatures included."""
SIGNATURE_ROOM = 1024
"""Bytes that an event of ours leaves where other servers sign it: two of them, with names of 255 bytes."""
MAX_ID_BYTES = 255
"""Bytes of an identifier, an event type or a state key."""
MAX_DEPTH = MAX_INTEGER
"""The depth of an event; those built on it have it too."""
MAX_LAX_INTEGER = 2**63 - 1
"""The largest depth and time of events in room versions without strict JSON."""
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10
MAX_PDUS = 50
"""PDUs of one transaction."""
MAX_EDUS = 100
"""EDUs of one transaction."""
MAX_SIGNATURES = 100
"""Signatures on one event, of all servers together; ours: an event in good health bears one to three."""
MAX_CLIENT_DEPTH = 64
"""Nesting of JSON from clients; ours."""
MAX_PDU_DEPTH = 512
"""Nesting of JSON from servers; ours, and generous: each event refused is a hole in the graph."""
MAX_KEY_VALIDITY = 7 * 24 * 3_600_000
"""Milliseconds into the future for which a server's key is believed, whatever its document says."""
MAX_DOCUMENT_KEYS = 64
"""Keys read from one key document; ours."""
MAX_GLOB_LENGTH = 512
"""Code points of a glob that is matched; ours."""
MAX_ACL_ENTRIES = 10_000
"""Entries of `allow` or `deny` that a server ACL heeds; an event of 65,536 bytes rarely holds more."""
