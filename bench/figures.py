"""What a workload's measurement gives, and how it reads in a table's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value below which `share` of the values lie (nearest rank); 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def number(value: float) -> str:
    """Write a number with three significant digits, never with an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def latency_line(latencies: Sequence[float]) -> str:
    """Write the median and the 99th percentile of latencies given in seconds."""
    p50, p99 = (number(percentile(latencies, share) * 1000) for share in (0.5, 0.99))
    return f"p50 {p50} ms, p99 {p99} ms"


@frozen
class Figures:
    """Operations done in some seconds, their latencies (seconds), and CPU milliseconds by who used them.

    `unit` names one operation. `notes` are further findings in words.
    """

    unit: str
    operations: int
    seconds: float
    latencies: Sequence[float] = ()
    cpu_ms: Mapping[str, float] = field(factory=dict)
    notes: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Give the figures as lines of a table's cell."""
        lines = []
        if self.cpu_ms:
            shares = [f"{number(used / max(self.operations, 1))} {who}" for who, used in self.cpu_ms.items()]
            lines.append(f"{' + '.join(shares)} ms CPU/{self.unit}")
        if self.operations > 1 and self.seconds:
            lines.append(f"{number(self.operations / self.seconds)} {self.unit}s/s")
        if self.latencies:
            lines.append(latency_line(self.latencies))
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, object]:
        """Give the figures as JSON, for keeping."""
        return {
            "unit": self.unit,
            "operations": self.operations,
            "seconds": self.seconds,
            "p50_ms": percentile(self.latencies, 0.5) * 1000,
            "p99_ms": percentile(self.latencies, 0.99) * 1000,
            "cpu_ms_each": {who: used / max(self.operations, 1) for who, used in self.cpu_ms.items()},
            "notes": list(self.notes),
        }
