"""Two servers of a kind and a room that both are in."""

from __future__ import annotations

import asyncio

from attrs import frozen

from bench.client import Client
from bench.deliveries import Deliveries, long_poll, stop_tasks
from bench.stage import Stage

PATIENCE_SECONDS = 60.0
MEETING_MARK = 999_999


@frozen
class Meeting:
    """A sender at home and a reader away, in one room."""

    sender: Client
    reader: Client
    room_id: str


async def meet(stage: Stage) -> Meeting:
    """Make a room at home which a user of the other server joins; wait until messages pass."""
    away = await stage.away()
    sender, reader = (await stage.home.users(1))[0], (await away.users(1))[0]
    room_id = await sender.create_room()
    since = await reader.position()
    await reader.join(room_id, stage.home.name)
    deliveries = Deliveries()
    deliveries.send(MEETING_MARK, 1)
    task = asyncio.create_task(long_poll(reader, since, lambda found: deliveries.receive(0, found)))
    try:
        await sender.exchange(sender.build_send(room_id, MEETING_MARK))
        await deliveries.wait(PATIENCE_SECONDS)
    finally:
        await stop_tasks([task])
        reader.connection.close()
    return Meeting(sender, reader, room_id)
