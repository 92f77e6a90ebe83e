"""Statements that a PostgreSQL connection plans once and then runs by name.

To plan a statement costs the server several times what it costs to run it, wherever it touches a row or two.
Plans outlive transactions and roll-backs; a plan whose making may have failed is made anew under another
name. Types of parameters are inferred from the columns they stand beside, so a statement in which they stand
alone cannot be planned.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import define, field


class Often(str):
    """The text of a statement that is run with nearly every event or page: worth a plan of its own."""

    __slots__ = ()


@define(eq=False)
class Plans:
    """The plans of one connection."""

    _known: dict[str, str] = field(factory=dict, init=False)
    """Names by text, with its places as `%s`."""
    _coming: dict[str, str] = field(factory=dict, init=False)
    """The same, on their way to the server."""
    _made: int = field(default=0, init=False)

    def statements(self, text: str) -> tuple[bytes, str]:
        """Give what makes the plan of a statement (nothing if it is made), and what runs it."""
        name = self._known.get(text) or self._coming.get(text)
        if name is not None:
            return b"", _run_by_name(name, text)
        self._made += 1
        self._coming[text] = name = f"plait_{self._made}"
        return f"PREPARE {name} AS {_numbered(text)};".encode(), _run_by_name(name, text)

    def arrived(self) -> None:
        """Note that the server has run all it was given."""
        if self._coming:
            self._known |= self._coming
            self._coming.clear()

    def lost(self) -> None:
        """Note that it is not known what the server has run."""
        self._coming.clear()


def _run_by_name(name: str, text: str) -> str:
    return f"EXECUTE {name} ({', '.join(['%s'] * text.count('%s'))})"


@lru_cache(maxsize=256)
def _numbered(text: str) -> str:
    """Write the places as `$1`, `$2`, … and what was doubled for the driver once."""
    first, *others = text.split("%s")
    return "".join([first, *(f"${n}{part}" for n, part in enumerate(others, 1))]).replace("%%", "%")
