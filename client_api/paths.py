"""Paths of client endpoints: the present name of each, and the older ones clients still use."""

from __future__ import annotations

_BASE = "/_matrix/client"


def v3(*endings: str) -> tuple[str, ...]:
    """Give the paths of an endpoint under `v3`, and under `r0` where it was before."""
    return tuple(f"{_BASE}/{version}{ending}" for ending in endings for version in ("v3", "r0"))


def v1(*endings: str) -> tuple[str, ...]:
    """Give the paths of an endpoint that came with `v1`."""
    return tuple(f"{_BASE}/v1{ending}" for ending in endings)
