"""Text that every engine can hold: U+0000 is stored escaped.

PostgreSQL cannot store U+0000 in text, yet JSON strings of events may contain it (state keys, types,
transaction IDs, profile fields). A store that keeps such a *keyed* string passes it through `escape` on
the way in and `unescape` on the way out. The engines refuse text with U+0000 with `IntegrityError`, on
both engines alike, so a forgotten `escape` shows at once and never depends on the engine.

The escape character is U+001A; it is itself escaped, so the mapping is one to one and keeps equality.
Not for JSON kept as bytes: canonical JSON writes U+0000 as an escape sequence already.
"""

from __future__ import annotations

_ESCAPE = "\x1a"
_ESCAPED_NUL = "\x1a0"
_ESCAPED_ESCAPE = "\x1a1"


def escape(text: str) -> str:
    """Give `text` in a form without U+0000; ordinary text is returned as it is."""
    if "\0" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPED_ESCAPE).replace("\0", _ESCAPED_NUL)


def unescape(stored: str) -> str:
    """Give back what `escape` was given."""
    if _ESCAPE not in stored:
        return stored
    return stored.replace(_ESCAPED_NUL, "\0").replace(_ESCAPED_ESCAPE, _ESCAPE)
