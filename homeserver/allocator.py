"""The C library's memory allocator, told to give back what is free.

A password's hash takes 12 MB for a moment. By default glibc learns from such blocks to keep as much in every
thread's arena for good. With fixed thresholds large blocks go back at once, and two arenas suffice where one
interpreter lock lets one thread run at a time. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""The numbers glibc's `malloc.h` gives these parameters."""
LARGE = 1024 * 1024
"""Bytes from which a block is mapped on its own, and beyond which free memory at the end is given back."""
ARENAS = 2


def give_memory_back() -> bool:
    """Set the allocator; call it before threads start. False where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, LARGE), (M_ARENA_MAX, ARENAS))
    results = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(results)
