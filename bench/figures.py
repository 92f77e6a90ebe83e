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
            shares = [f"{used / max(self.operations, 1):.3g} {who}" for who, used in self.cpu_ms.items()]
            lines.append(f"{' + '.join(shares)} ms CPU/{self.unit}")
        if self.operations > 1 and self.seconds:
            lines.append(f"{self.operations / self.seconds:.3g} {self.unit}s/s")
        if self.latencies:
            p50, p99 = (percentile(self.latencies, share) * 1000 for share in (0.5, 0.99))
            lines.append(f"p50 {p50:.3g} ms, p99 {p99:.3g} ms")
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
