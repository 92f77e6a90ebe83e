"""Figures of the state trie: `python -m bench.state_trie [--compare]`, from the top of the checkout.

A room of 100,000 members and 300 other entries. Prints the cost of a change, of comparing states and of
reading from the database; with `--compare`, of other fan-outs and leaf sizes too. The median of some runs,
on one thread, garbage collector on.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from struct import Struct

from twisted.internet.task import react
from twisted.trial.unittest import SkipTest

from storage import state_trie, trie_format, trie_update, trie_walks
from storage.database import Database, Transaction
from storage.engines import open_database
from storage.migrate import migrate
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_nodes import run_in_transaction, run_walk
from tests.storage.helpers import insert_nodes, postgres_server

ROOM = 1
MEMBERS = 100_000
SHAPES = ((3, 16), (3, 32), (4, 16), (4, 24), (4, 28), (4, 32), (4, 48), (4, 64), (5, 32), (5, 64))


def timed(work: Callable[[], object], runs: int = 7) -> float:
    """Give the median time of `work` in milliseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def build() -> tuple[dict, StateRoot, dict]:
    """Build the room and give its state, root and nodes."""
    dice = random.Random(5)
    nids = list(range(1000, 1000 + MEMBERS + 300))
    dice.shuffle(nids)
    state = {("m.room.member", f"@user{n}:server{n % 97}.example.org"): nids.pop() for n in range(MEMBERS)}
    state |= {("m.space.child", f"!room{n}:example.org"): nids.pop() for n in range(285)}
    state |= {(f"m.room.kind{n}", ""): nids.pop() for n in range(15)}
    applied = run_walk(state_trie.apply(ROOM, EMPTY_ROOT, state), lambda names: {})
    return state, applied.root, dict(applied.nodes)


def memory_figures() -> dict[str, str]:
    """Measure the pure algorithm over nodes in a dict."""
    start = time.perf_counter()
    state, root, nodes = build()
    building = (time.perf_counter() - start) * 1000

    def run(walk):
        return run_walk(walk, lambda names: {name: nodes[name] for name in names})

    dice = random.Random(7)
    members = [key for key in state if key[0] == "m.room.member"]
    made = []

    def change_one_by_one() -> None:
        top = root
        for number in range(500):
            key = dice.choice(members) if number % 2 else ("m.room.member", f"@new{number}:x.example.org")
            applied = run(state_trie.apply(ROOM, top, {key: 200_000 + number}))
            nodes.update(applied.nodes)
            made.append((len(applied.nodes), sum(map(len, applied.nodes.values()))))
            top = applied.root

    changing = timed(change_one_by_one, 5)
    applied = run(state_trie.apply(ROOM, root, dict.fromkeys(dice.sample(members, 2000), 300000)))
    nodes.update(applied.nodes)
    wanted = [("m.room.create", ""), ("m.room.kind3", ""), ("m.room.kind4", ""), members[77]]
    return {
        "bulk build, ms": f"{building:.0f}",
        "a change, us": f"{changing / 500 * 1000:.0f}",
        "bytes a change": f"{statistics.mean(size for _, size in made):.0f}",
        "nodes a change": f"{statistics.mean(count for count, _ in made):.1f}",
        "4 keys, us": f"{timed(lambda: [run(state_trie.find(root, wanted)) for _ in range(100)]) * 10:.0f}",
        "2,000 differences, ms": f"{timed(lambda: run(state_trie.diff(root, applied.root))):.0f}",
        "all members, ms": f"{timed(lambda: run(state_trie.members(root))):.0f}",
        "all but members, ms": f"{timed(lambda: run(state_trie.all_except_type(root, 'm.room.member'))):.2f}",
        "nodes": str(len(build()[2])),
        "MB": f"{sum(map(len, build()[2].values())) / 1e6:.1f}",
    }


def compare() -> None:
    """Print the figures for several fan-outs and leaf sizes."""
    for bits, capacity in SHAPES:
        for module in (trie_format, trie_update, trie_walks):
            for name, value in (
                ("BRANCH_BITS", bits),
                ("FAN_OUT", 1 << bits),
                ("LEAF_CAPACITY", capacity),
            ):
                if hasattr(module, name):
                    setattr(module, name, value)
        trie_format._BRANCH_HEAD = Struct("<BI" if bits == 5 else "<BH")
        print(f"fan-out {1 << bits}, leaves to {capacity}:", memory_figures(), flush=True)


async def database_figures(database: Database) -> dict[str, str]:
    """Measure reading the room from a database, in a transaction, without our cache."""
    await migrate(database)
    state, root, nodes = build()
    await database.write(insert_nodes, ROOM, nodes)

    async def reading(make: Callable[[], object], runs: int = 7) -> str:
        def work(tx: Transaction) -> tuple[float, int]:
            start = time.perf_counter()
            found = run_in_transaction(tx, ROOM, make())
            return (time.perf_counter() - start) * 1000, len(found)

        results = [await database.read(work) for _ in range(runs)]
        return f"{statistics.median(result[0] for result in results):.2f} ({results[0][1]:,} entries)"

    applied = run_walk(
        state_trie.apply(ROOM, root, dict.fromkeys(list(state)[:100000:50], 300000)),
        lambda names: {name: nodes[name] for name in names},
    )
    await database.write(insert_nodes, ROOM, applied.nodes)
    wanted = [("m.room.kind3", ""), ("m.room.kind4", ""), ("m.room.member", "@user77:server77.example.org")]
    return {
        "all members, ms": await reading(lambda: state_trie.members(root)),
        "all but members, ms": await reading(lambda: state_trie.all_except_type(root, "m.room.member")),
        "3 keys, ms": await reading(lambda: state_trie.find(root, wanted)),
        "2,000 differences, ms": await reading(lambda: state_trie.diff(root, applied.root)),
    }


async def main(reactor: object, *arguments: str) -> None:
    """Print all figures."""
    options = argparse.ArgumentParser()
    options.add_argument("--compare", action="store_true", help="other fan-outs and leaf sizes too")
    if options.parse_args(arguments).compare:
        compare()
        return
    print("in memory:", memory_figures(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{Path(folder) / 'plait.db'}"]
        try:
            urls.append(postgres_server().create_database())
        except SkipTest as missing:
            print(missing)
        for url in urls:
            database = await open_database(url, reactor, pool_size=2)
            print(database.dialect.value + ":", await database_figures(database), flush=True)
            await database.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
