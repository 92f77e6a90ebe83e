"""What devices of users of two homeservers know of each other, and say to each other directly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from tests.interop.client import Json, User
from tests.interop.conversations import open_room
from tests.interop.network import Node, sleep
from tests.interop.watching import PATIENCE_SECONDS, Watcher

POLL_SECONDS = 0.2
LARGE = 40_000
"""Characters of a message, of which an EDU holds one."""


async def eventually(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask again and again until the answer is the wanted one."""
    found: object = None
    for _ in range(int(PATIENCE_SECONDS / POLL_SECONDS)):
        found = await ask()
        if found == wanted:
            return
        await sleep(POLL_SECONDS)
    raise AssertionError(f"wanted {wanted}, found {found}")


async def upload_keys(user: User) -> None:
    """Upload a device's identity keys and two one-time keys; nobody looks at their signatures."""
    signatures = {user.user_id: {f"ed25519:{user.device_id}": "C" * 86}}
    device_keys = {
        "user_id": user.user_id,
        "device_id": user.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"{kind}:{user.device_id}": "A" * 43 for kind in ("curve25519", "ed25519")},
        "signatures": signatures,
    }
    one = {"key": "D" * 43, "signatures": signatures}
    one_time = {f"signed_curve25519:{number}": one for number in range(2)}
    await user.request("POST", "/v3/keys/upload", {"device_keys": device_keys, "one_time_keys": one_time})


async def known_devices(reader: User, user_id: str) -> set[str]:
    """Give the devices of a user whose keys another is told."""
    answer = await reader.request("POST", "/v3/keys/query", {"device_keys": {user_id: []}})
    assert not answer.get("failures"), answer
    devices: dict[str, Json] = answer["device_keys"].get(user_id, {})
    return {device_id for device_id, keys in devices.items() if keys.get("keys")}


async def follow_devices(host: Node, guest: Node, version: str) -> None:
    """A guest's user learns of each device of a host's user and of its end; a new name leaves it its keys."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    name = alice.user_id[1:].split(":")[0]
    await upload_keys(alice)
    room_id = await open_room(alice, version)
    hers = Watcher(alice)
    await bob.join(room_id, host.name)
    await hers.until_member(room_id, bob.user_id, "join")
    assert await known_devices(bob, alice.user_id) == {alice.device_id}
    devices = [alice]
    for _ in range(2):
        devices.append(await host.api.login(name))
        await upload_keys(devices[-1])
        wanted = {user.device_id for user in devices}
        await eventually(lambda: known_devices(bob, alice.user_id), wanted)
        path = f"/v3/devices/{quote(alice.device_id)}"
        await alice.request("PUT", path, {"display_name": f"one of {len(wanted)}"})
    for user in devices[1:]:
        await user.request("POST", "/v3/logout", {})
    await eventually(lambda: known_devices(bob, alice.user_id), {alice.device_id})
    claim = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    claimed = [await bob.request("POST", "/v3/keys/claim", claim) for _ in range(3)]
    keys = [set(each["one_time_keys"].get(alice.user_id, {}).get(alice.device_id, {})) for each in claimed]
    assert keys == [{"signed_curve25519:0"}, {"signed_curve25519:1"}, set()], keys


async def write_to_devices(host: Node, guest: Node) -> None:
    """Messages from device to device arrive, each once and in order, however many are sent in one go."""
    alice, bob = await host.user("alice"), await guest.user("bob")
    other = await guest.api.login(bob.user_id[1:].split(":")[0])
    both = (bob, other)
    sendings: list[Json] = [
        {bob.device_id: {"body": "to one", "a": {"z": 1, "b": [None, "ü"]}}},
        {user.device_id: {"body": "x" * LARGE} for user in both},
        {"*": {"body": "to all"}},
    ]
    for number, by_device in enumerate([sendings[0], *sendings]):
        path = f"/v3/sendToDevice/org.example.note/{alice.device_id}.{max(number, 1)}"
        await alice.request("PUT", path, {"messages": {bob.user_id: by_device}})
    for user, wanted in ((bob, ["to one", "x" * LARGE, "to all"]), (other, ["x" * LARGE, "to all"])):
        since: str | None = None
        got: list[str] = []
        while len(got) < len(wanted):
            answer = await user.sync(since, 1000)
            since = answer["next_batch"]
            got += [event["content"]["body"] for event in answer.get("to_device", {}).get("events", [])]
        assert got == wanted, [body[:20] for body in got]
