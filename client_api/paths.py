"""Paths of the client-server API: the stable name of an endpoint first, older and unstable ones after it.

Source: client-server-api/_index.md, "API Versions".
"""

from __future__ import annotations

_CLIENT = "/_matrix/client"


def v3(*tails: str) -> tuple[str, ...]:
    """Give the paths of endpoints that are as old as the API: `v3` and `r0`."""
    return tuple(f"{_CLIENT}/{version}{tail}" for tail in tails for version in ("v3", "r0"))


def v1(*tails: str, unstable: str = "") -> tuple[str, ...]:
    """Give the paths of newer endpoints: `v1`, and `unstable/{unstable}` if it has such a name."""
    versions = ("v1", f"unstable/{unstable}") if unstable else ("v1",)
    return tuple(f"{_CLIENT}/{version}{tail}" for tail in tails for version in versions)


def unstable(name: str, *tails: str) -> tuple[str, ...]:
    """Give the paths of endpoints that the specification does not have yet."""
    return tuple(f"{_CLIENT}/unstable/{name}{tail}" for tail in tails)
