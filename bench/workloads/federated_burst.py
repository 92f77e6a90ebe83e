"""500 events sent in a burst to a reader on another server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from bench.client import Client
from bench.deliveries import Deliveries, long_poll, stop_tasks
from bench.federation import PATIENCE_SECONDS, Meeting, meet
from bench.figures import Figures
from bench.hosts import in_parallel
from bench.stage import Stage
from bench.workloads.workload import Workload

SENDERS = 20


async def play(stage: Stage) -> Figures:
    """Send as fast as can be, and see what reaches the remote `/sync`, in which order."""
    meeting = await meet(stage)
    senders = await stage.home.users(SENDERS)
    await in_parallel(lambda user: user.join(meeting.room_id), senders[1:])
    deliveries = Deliveries()
    here: list[int] = []
    there: list[int] = []

    def take_there(found: list[int]) -> None:
        there.extend(found)
        deliveries.receive(0, found)

    meter = await stage.meter(federated=True)
    tasks = [
        asyncio.create_task(long_poll(meeting.reader, await meeting.reader.position(), take_there)),
        asyncio.create_task(long_poll(meeting.sender, await meeting.sender.position(), here.extend)),
    ]
    try:
        burst = meter.elapsed()
        await _send_all(stage.scale.of(500, 100), senders[1:], meeting, deliveries)
        burst = meter.elapsed() - burst
        await deliveries.wait(PATIENCE_SECONDS if not stage.scale.quick else 10)
        meter.latencies = deliveries.latencies
        order = "in order" if _is_in_order(there, here) else "in another order"
        seen = f"{len(there)} of {deliveries.expected} in /sync, {order}"
        return await meter.finish("event", deliveries.expected, [f"sent in {burst:.1f} s", seen])
    finally:
        await stop_tasks(tasks)
        for client in (meeting.reader, meeting.sender):
            client.connection.close()


def _is_in_order(there: Sequence[int], here: Sequence[int]) -> bool:
    """Tell whether what came there, whole or not, came in the order it has here, each once."""
    places = {mark: place for place, mark in enumerate(here)}
    found = [places.get(mark, -1) for mark in there]
    return all(earlier < later for earlier, later in pairwise(found))


async def _send_all(count: int, senders: Sequence[Client], meeting: Meeting, deliveries: Deliveries) -> None:
    """Let the senders share out the messages."""
    marks = iter(range(count))

    async def send(sender: Client) -> None:
        for mark in marks:
            deliveries.send(mark, 1)
            await sender.exchange(sender.build_send(meeting.room_id, mark))

    await in_parallel(send, senders, workers=len(senders))


WORKLOAD = Workload("federated-burst", "500 events in a burst to a remote reader", "all 500, in order", play)
