"""Figures of WebSocket sessions for Prometheus: how many there are, how they begin, why they end."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

LOST = "lost"
"""The reason of a session whose socket broke without `bye`."""


class SessionMetrics:
    """Counts sessions."""

    def __init__(self, registry: CollectorRegistry, count: Callable[[], int]) -> None:
        """Register the series; `count` tells how many sessions are live."""
        live = Gauge("plait_websocket_sessions", "WebSocket sessions that are live", registry=registry)
        live.set_function(count)
        self._begun = Counter(
            "plait_websocket_sessions_begun", "Sessions that began, by how", ("how",), registry=registry
        )
        self._ended = Counter(
            "plait_websocket_sessions_ended",
            "Connections that ended, by reason",
            ("reason",),
            registry=registry,
        )

    def begun(self, *, resumed: bool, refused: bool) -> None:
        """Count a session that begins: anew, where another one ended, or anew since it may not resume."""
        self._begun.labels("refused" if refused else "resumed" if resumed else "first").inc()

    def ended(self, reason: str) -> None:
        """Count a connection that ends with `bye`, or is lost."""
        self._ended.labels(reason).inc()
