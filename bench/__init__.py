"""Benchmarks: homeservers driven from outside over their public APIs, and compared in one run.

`python -m bench` starts private servers on loopback, one kind after the other, plays the workloads of
`bench/workloads/` on each, and prints what each operation cost. Not a test: nothing here passes or fails.
The load comes from plain asyncio sockets with requests built beforehand, for it shares the machine with
what it measures. It imports the process fixtures of `tests/interop/`, and nothing of the server's own.
"""
