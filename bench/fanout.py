"""One sender, many readers of one room: first one message at a time, then ten a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bench.client import Client
from bench.deliveries import Deliveries, stop_tasks
from bench.figures import Figures, latency_line
from bench.stage import Stage

READERS = 100
RATE = 10.0
PATIENCE_SECONDS = 30.0

Reader = Callable[[Client, str, Callable[[list[int]], object]], Awaitable[None]]
"""Follows one client from a token on, and hands over the numbers of messages."""


async def measure_fanout(stage: Stage, reader: Reader) -> Figures:
    """Measure CPU per delivery without coalescing, and latency at a steady rate."""
    clients = await stage.home.users(stage.scale.of(READERS, 20) + 1)
    sender, readers = clients[0], clients[1:]
    room_id = await stage.full_room(clients)
    await stage.settle()
    deliveries = Deliveries()
    tasks = await _start_readers(readers, reader, deliveries)
    try:
        meter = await stage.meter()
        for mark in range(stage.scale.of(20, 5)):
            deliveries.send(mark, len(readers))
            await sender.exchange(sender.build_send(room_id, mark))
            if not await deliveries.wait(PATIENCE_SECONDS) or meter.elapsed() > 4 * stage.scale.seconds:
                break
        figures = await meter.finish("delivery", len(deliveries.latencies))
        rated = await _at_rate(stage, sender, room_id, deliveries, len(readers))
    finally:
        await stop_tasks(tasks)
        for client in readers:
            client.connection.close()
    return Figures(figures.unit, figures.operations, 0.0, (), figures.cpu_ms, rated)


async def _start_readers(
    readers: Sequence[Client], reader: Reader, deliveries: Deliveries
) -> list[asyncio.Task[None]]:
    """Let every reader follow from now on."""
    tokens = [await client.position() for client in readers]

    async def follow(number: int) -> None:
        await reader(readers[number], tokens[number], lambda found: deliveries.receive(number, found))

    return [asyncio.create_task(follow(number)) for number in range(len(readers))]


async def _at_rate(
    stage: Stage, sender: Client, room_id: str, earlier: Deliveries, readers: int
) -> Sequence[str]:
    """Send ten messages a second for some seconds, whether or not the server keeps up; tell the latencies."""
    alone = earlier.latencies[:]
    earlier.latencies.clear()
    earlier.expected = 0
    requests = []
    for mark in range(1000, 1000 + int(stage.scale.seconds * RATE)):
        earlier.send(mark, readers)
        requests.append(asyncio.create_task(_send_apart(sender, room_id, mark)))
        await asyncio.sleep(1 / RATE)
    complete = await earlier.wait(PATIENCE_SECONDS)
    await stop_tasks(requests)
    delivered = "all" if complete else f"{len(earlier.latencies)} of {earlier.expected}"
    return [
        f"alone: {latency_line(alone)}",
        f"at {RATE:g}/s: {latency_line(earlier.latencies)}",
        f"{delivered} delivered",
    ]


async def _send_apart(sender: Client, room_id: str, mark: int) -> None:
    """Send one message on a connection of its own, so that a slow answer delays no other."""
    connection = type(sender.connection)(sender.connection.port)
    try:
        await connection.exchange(sender.build_send(room_id, mark))
    finally:
        connection.close()
