"""Two homeservers on one machine, federating over TLS with a test CA of their own; a user on each talks.

`make demo` runs it: alice's messages are printed as bob receives them over a WebSocket, bob's as alice
receives them over `/sync`. Everything is removed at the end.
"""

from __future__ import annotations

import json
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

from tests.interop.client import User
from tests.interop.network import NETWORKS, Kind, Node

LINES = (
    "Hello from the first server!",
    "Hello from the second. How did your words get here?",
    "Signed, over TLS, from server to server.",
    "And mine the same way back.",
)
DEADLINE = 30.0


class Listener(WebSocketClientProtocol):  # type: ignore[misc]  # untyped in Autobahn
    """A client that listens to its rooms."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Authenticate after `hello`, acknowledge what is pushed, and pass messages on."""
        frame = json.loads(payload)
        if frame["type"] == "hello":
            self.say({"type": "auth", "token": self.factory.token})
        elif frame["type"] == "ping":
            self.say({"type": "pong"})
        elif frame["type"] == "sync":
            self.say({"type": "ack", "seq": frame["seq"]})
            for body in bodies_in(frame):
                self.factory.heard(body)

    def say(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        self.sendMessage(json.dumps(frame).encode())


class Ear:
    """Waits for messages, and prints them as they arrive."""

    def __init__(self, label: str) -> None:
        """Print under `label`."""
        self.label = label
        self._heard: set[str] = set()
        self._waiting: dict[str, Deferred[None]] = {}

    def hear(self, body: str) -> None:
        """Take a message in."""
        if body in LINES and body not in self._heard:
            print(f"  {self.label} {body}", flush=True)
        self._heard.add(body)
        waiting = self._waiting.pop(body, None)
        if waiting is not None:
            waiting.callback(None)

    async def wait_for(self, body: str) -> None:
        """Wait until a message has arrived."""
        if body not in self._heard:
            waiting: Deferred[None] = Deferred()
            self._waiting[body] = waiting
            waiting.addTimeout(DEADLINE, reactor)  # type: ignore[arg-type]  # the module is the reactor
            await waiting


def bodies_in(answer: dict[str, Any]) -> list[str]:
    """Give the texts of an answer of `/sync`, or of a `sync` frame."""
    rooms = answer.get("rooms", {}).get("join", {}).values()
    events = [event for room in rooms for event in room.get("timeline", {}).get("events", ())]
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


def open_socket(node: Node, user: User, ear: Ear) -> None:
    """Listen over a WebSocket."""
    port = node.server.place.client_port
    factory = WebSocketClientFactory(
        f"ws://127.0.0.1:{port}/_plait/client/v1/ws", protocols=["plait.v1.json"]
    )
    factory.protocol = Listener
    factory.token = user.token
    factory.heard = ear.hear
    reactor.connectTCP("127.0.0.1", port, factory)  # type: ignore[attr-defined]  # the module is the reactor


async def poll(user: User, ear: Ear) -> None:
    """Listen by long-polling `/sync`, until cancelled."""
    since = None
    while True:
        answer = await user.sync(since, timeout_ms=10_000)
        since = answer["next_batch"]
        for body in bodies_in(answer):
            ear.hear(body)


async def converse(_reactor: object) -> None:
    """Start the servers, let the users meet and talk."""
    print("Starting two homeservers …", flush=True)
    network = await NETWORKS.get((Kind.PLAIT, Kind.PLAIT), postgres=False)
    one, other = network.nodes
    alice, bob = await one.user("alice"), await other.user("bob")
    room_id = await alice.create_room(preset="public_chat", name="Demo")
    print(f"{alice.user_id} made {room_id}", flush=True)
    await bob.join(room_id, via=one.name)
    print(f"{bob.user_id} joined it from {other.name}", flush=True)
    at_alice, at_bob = Ear("alice hears over /sync:     "), Ear("bob hears over the WebSocket:")
    open_socket(other, bob, at_bob)
    polling = Deferred.fromCoroutine(poll(alice, at_alice)).addErrback(lambda _: None)
    for number, line in enumerate(LINES):
        speaker, ear = (alice, at_bob) if number % 2 == 0 else (bob, at_alice)
        await speaker.say(room_id, line)
        await ear.wait_for(line)
    polling.cancel()
    print("All messages arrived, both ways.", flush=True)


if __name__ == "__main__":
    task.react(converse)
