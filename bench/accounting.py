"""CPU time and memory of processes and all their children, as the operating system counts them (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
REAPED_FIELDS = slice(13, 15)
"""cutime and cstime in `/proc/PID/stat`, counted after the command's closing parenthesis."""


def tree(pid: int) -> Iterator[int]:
    """Give a process and its living descendants; a process that ends meanwhile is left out."""
    yield pid
    try:
        children = [
            int(child) for path in PROC.glob(f"{pid}/task/*/children") for child in path.read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield from tree(child)


def cpu_ms(pid: int) -> float:
    """Give the CPU milliseconds used so far by a process tree, ended and reaped children included."""
    return sum(_own_ms(each) + _reaped_ms(each) for each in tree(pid))


def resident_mb(pid: int) -> float:
    """Give the resident memory of a process tree in MB (10^6 bytes)."""
    return sum(_status_kb(each, "VmRSS") for each in tree(pid)) * 1024 / 1e6


def peak_mb(pid: int) -> float:
    """Give the sum of the peaks of resident memory of a process tree in MB."""
    return sum(_status_kb(each, "VmHWM") for each in tree(pid)) * 1024 / 1e6


def _own_ms(pid: int) -> float:
    """Give the CPU time of all threads of one process, from its CPU clock (nanoseconds, not ticks)."""
    try:
        return time.clock_gettime((~pid << 3) | 2) * 1000
    except OSError:
        return 0.0


def _reaped_ms(pid: int) -> float:
    """Give the CPU time of a process's reaped children."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0
    fields = stat[stat.rindex(")") + 2 :].split()
    return sum(int(field) for field in fields[REAPED_FIELDS]) * 1000 / TICKS_PER_SECOND


def _status_kb(pid: int, key: str) -> int:
    """Give a line of `/proc/PID/status` in kB."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:")), 0)
