"""Figures of the HTTP server for Prometheus: requests by endpoint, their times, and what is refused.

An endpoint is named by its template, never by the path sent, so no stranger can make new series.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from homeserver.http.calls import Call, Reply, Response
from homeserver.http.routing import Auth, RateClass, Route

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
UNKNOWN = "unknown"
"""The endpoint of requests that have none."""


class RequestMetrics:
    """Counts requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the series."""
        self._requests = Counter(
            "plait_http_requests", "Requests answered", ("method", "endpoint", "status"), registry=registry
        )
        self._seconds = Histogram(
            "plait_http_request_seconds",
            "Time to the answer, long-polls aside",
            ("method", "endpoint"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._under_way = Gauge(
            "plait_http_requests_under_way", "Requests not yet answered, long-polls aside", registry=registry
        )
        # `labels()` is slow: it locks and builds its key anew each time.
        self._counters: dict[tuple[Route | None, int], Counter] = {}
        self._timers: dict[Route, Histogram] = {}

    def answered(self, route: Route | None, status: int, milliseconds: int) -> None:
        """Count an answer; `route` is None if the request had no endpoint."""
        counter = self._counters.get((route, status))
        if counter is None:
            method, endpoint = ("", UNKNOWN) if route is None else (route.method, route.paths[0])
            counter = self._requests.labels(method, endpoint, str(status))
            self._counters[route, status] = counter
        counter.inc()
        if route is None or route.waits:
            return
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route.method, route.paths[0])
        timer.observe(milliseconds / 1000)

    def under_way(self, count: int) -> None:
        """Tell how many requests are not yet answered."""
        self._under_way.set(count)


class MetricsPage:
    """Serves the figures, on listeners with the resource `metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Serve what is in `registry`."""
        self._registry = registry

    async def show(self, call: Call[None]) -> Reply:
        """Give all series in Prometheus's text format."""
        return Response(200, generate_latest(self._registry), (), "text/plain; version=0.0.4; charset=utf-8")

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        return (
            Route(
                "GET",
                "/metrics",
                self.show,
                auth=Auth.NONE,
                limit=RateClass.NONE,
                over_websocket=False,
                cors=False,
            ),
        )
