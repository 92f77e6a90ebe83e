"""Paths of client endpoints: the present name of each, and the older ones clients still use."""

from __future__ import annotations

_BASE = "/_matrix/client"


def v3(*endings: str) -> tuple[str, ...]:
    """Give the paths of an endpoint under `v3`, and under `r0` where it was before."""
    return tuple(f"{_BASE}/{version}{ending}" for ending in endings for version in ("v3", "r0"))


def v1(*endings: str, unstable: str = "") -> tuple[str, ...]:
    """Give the paths of an endpoint that came with `v1`, and those it had before, named `unstable`."""
    former = tuple(f"{_BASE}/unstable/{unstable}{ending}" for ending in endings) if unstable else ()
    return (*(f"{_BASE}/v1{ending}" for ending in endings), *former)


def v3_once_unstable(name: str, *endings: str) -> tuple[str, ...]:
    """Give the paths of an endpoint under `v3`, and under the unstable `name` it had before."""
    return (*v3(*endings), *(f"{_BASE}/unstable/{name}{ending}" for ending in endings))
