"""`/messages`, pages of 100, back to the beginning of a room of 1,000 messages."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from bench.client import Client
from bench.figures import Figures
from bench.stage import Meter, Stage
from bench.workloads.workload import Workload

PAGE = 100
WALKS = 5
MOST_PAGES = 30


async def play(stage: Stage) -> Figures:
    """Measure some walks through the same history, each by another user."""
    room_id = await stage.history_room()
    users = await stage.home.users(WALKS)
    meter = await stage.meter()
    events = 0
    for user in users:
        events += await _walk(meter, user, room_id)
    pages = len(meter.latencies)
    return await meter.finish("message", events, [f"{pages} pages"])


async def _walk(meter: Meter, user: Client, room_id: str) -> int:
    """Page back to the beginning, and give how many events there were."""
    query: dict[str, object] = {"dir": "b", "limit": PAGE}
    events = 0
    for _ in range(MOST_PAGES):
        request = user.build("GET", f"/v3/rooms/{quote(room_id)}/messages?{urlencode(query)}")
        body = b""

        async def page(asked: bytes = request) -> None:
            nonlocal body
            body = await user.exchange(asked)

        await meter.timed(page())
        answer = json.loads(body)
        events += len(answer["chunk"])
        if "end" not in answer:
            break
        query["from"] = answer["end"]
    return events


WORKLOAD = Workload("messages", "/messages, pages of 100 (per message)", "≤ 0.02 + 0.02 ms", play)
