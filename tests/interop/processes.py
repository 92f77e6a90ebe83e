"""Homeservers as child processes: a real Synapse and a Plait, configured alike for loopback networks.

A server is named `localhost:PORT`, so no name has to be resolved: PORT is where others reach its federation
listener, directly or through a proxy (`proxy.py`). TLS certificates come from the run's own authority.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from tests.interop.places import Place
from tests.interop.plait_config import plait_config
from tests.interop.programs import Command, Program, Sleep
from tests.interop.synapse_config import synapse_config

SYNAPSE_PYTHON = "PLAIT_TEST_SYNAPSE_PYTHON"
"""The environment variable that names a Python which has Synapse installed."""

PROJECT = Path(__file__).resolve().parents[2]


def find_synapse_python() -> str | None:
    """Find a Python that can run Synapse: the environment's choice, else this one, else None."""
    chosen = os.environ.get(SYNAPSE_PYTHON)
    if chosen:
        return chosen
    return sys.executable if importlib.util.find_spec("synapse") else None


class Homeserver(Protocol):
    """What tests and benchmarks need of a server's process."""

    @property
    def place(self) -> Place:
        """Tell where it lives."""

    @property
    def program(self) -> Program:
        """Give its process."""

    async def start(self, sleep: Sleep) -> None:
        """Start it and wait until it is ready."""


@frozen
class SynapseServer:
    """One Synapse, a single process without workers."""

    place: Place
    program: Program

    @classmethod
    def make(cls, place: Place, python: str) -> SynapseServer:
        """Write a configuration as Synapse generates it (logging, secrets), with ours on top."""
        place.directory.mkdir(parents=True, exist_ok=True)
        generated, ours = place.directory / "generated.yaml", place.directory / "homeserver.yaml"
        module = [python, "-m", "synapse.app.homeserver", "-c", str(generated)]
        generate = ["--generate-config", "--report-stats", "no", "--data-directory", str(place.directory)]
        subprocess.run(
            [*module, *generate, "--server-name", place.server_name],
            cwd=place.directory,
            check=True,
            capture_output=True,
        )
        _write_json(ours, synapse_config(place))
        log = place.directory / "output.log"
        return cls(place, Program(Command([*module, "-c", str(ours)], place.directory, log)))

    async def start(self, sleep: Sleep) -> None:
        """Start Synapse and wait until it answers clients."""
        self.program.start()
        await self.program.wait_ready(lambda: answers_versions(self.place.client_port), sleep)


@frozen
class PlaitServer:
    """One Plait, started as any user starts it."""

    place: Place
    program: Program

    @classmethod
    def make(cls, place: Place) -> PlaitServer:
        """Write a configuration for `place`."""
        place.directory.mkdir(parents=True, exist_ok=True)
        path = place.directory / "homeserver.yaml"
        _write_json(path, plait_config(place))
        argv = [sys.executable, "-m", "homeserver", "--config", str(path)]
        return cls(place, Program(Command(argv, PROJECT, place.directory / "output.log")))

    async def start(self, sleep: Sleep) -> None:
        """Start Plait and wait until it answers clients."""
        self.program.start()
        await self.program.wait_ready(lambda: answers_versions(self.place.client_port), sleep)


def answers_versions(port: int) -> bool:
    """Tell whether `GET /_matrix/client/versions` on a loopback port answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_matrix/client/versions")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _write_json(path: Path, config: dict[str, Any]) -> None:
    """Write a configuration as JSON, which is YAML too."""
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
