"""A value that must not be seen: its `repr` and `str` are stars, so no log line or dump shows it."""

from __future__ import annotations

import hmac


class Secret:
    """Hold a secret text; only `reveal` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep `text`, which may not be empty."""
        if not text:
            raise ValueError("a secret may not be empty")
        self._text = text

    def reveal(self) -> str:
        """Give the secret itself, at the place that needs it."""
        return self._text

    def matches(self, other: str) -> bool:
        """Compare with a text from outside, in constant time."""
        return hmac.compare_digest(self._text.encode(), other.encode("utf-8", "surrogatepass"))

    def __eq__(self, other: object) -> bool:
        """Equal if both hold the same secret."""
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        """Hash the secret; the number tells nothing of it."""
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        """Show stars."""
        return "Secret(***)"

    __str__ = __repr__
