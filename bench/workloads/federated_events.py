"""Five events a second go to a reader on another server."""

from __future__ import annotations

import asyncio

from bench.deliveries import Deliveries, long_poll, stop_tasks
from bench.federation import PATIENCE_SECONDS, meet
from bench.figures import Figures
from bench.stage import Stage
from bench.workloads.workload import Workload

RATE = 5.0


async def play(stage: Stage) -> Figures:
    """Measure both servers' cost of an event, and its way from send to the reader's `/sync`."""
    meeting = await meet(stage)
    since = await meeting.reader.position()
    deliveries = Deliveries()
    task = asyncio.create_task(long_poll(meeting.reader, since, lambda found: deliveries.receive(0, found)))
    try:
        meter = await stage.meter(federated=True)
        for mark in range(stage.scale.of(100, 25)):
            deliveries.send(mark, 1)
            await meeting.sender.exchange(meeting.sender.build_send(meeting.room_id, mark))
            await asyncio.sleep(max(0.0, (mark + 1) / RATE - meter.elapsed()))
        await deliveries.wait(PATIENCE_SECONDS)
        meter.latencies = deliveries.latencies
        note = f"{len(deliveries.latencies)} of {deliveries.expected} seen"
        return await meter.finish("event", deliveries.expected, [note])
    finally:
        await stop_tasks([task])
        meeting.reader.connection.close()


WORKLOAD = Workload("federated-events", "federated event at 5/s", "≤ 2, 3 and 2 ms", play)
