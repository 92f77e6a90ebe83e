"""A server as its owner handles it: made by the command line, started, stopped, started again.

Source: docs/operations.md, "Starting and stopping".
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.network import sleep
from tests.interop.ports import free_ports
from tests.interop.processes import PROJECT, answers_versions
from tests.interop.programs import Command, Program, wait_until

CLEAN_EXIT_SECONDS = 10.0


def plait(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Plait's to its end."""
    code = f"import sys; sys.argv = ['plait', *{list(arguments)!r}]; from homeserver.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_folder(name: str) -> Path:
    """Make a folder for a server."""
    folder = Path(name).absolute()
    folder.mkdir(parents=True)
    return folder


def make_config(folder: Path, port: int) -> Path:
    """Let the command line write a configuration, on a port of its own."""
    path = folder / "homeserver.yaml"
    made = plait("generate-config", "--server-name", "localhost", "--data-dir", ".", "--output", str(path))
    assert made.returncode == 0, made.stderr
    text, changed = re.subn(r"(?m)^(\s*-?\s*port:) 8008", rf"\1 {port}", path.read_text(encoding="utf-8"))
    assert changed == 1
    path.write_text(text, encoding="utf-8")
    return path


def server(path: Path) -> Program:
    """Prepare a server's process."""
    argv = [sys.executable, "-m", "homeserver", "--config", str(path)]
    return Program(Command(argv, PROJECT, path.parent / "output.log"))


def log_in(port: int) -> str:
    """Log in as alice, and give her user ID."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "correct horse",
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/_matrix/client/v3/login", json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["user_id"])


class LifeTests(TestCase):
    """A server from its first start to its second."""

    timeout = 120

    async def test_life(self) -> None:
        """Accounts made by command outlive a stop; several signals at once end a server cleanly."""
        (port,) = free_ports(1)
        path = make_config(make_folder(self.mktemp()), port)
        program = server(path)
        self.addCleanup(program.kill)
        await self._start(program, port)
        made = plait("register-user", "--config", str(path), "--password", "correct horse", "alice")
        self.assertEqual((made.returncode, made.stdout), (0, "Registered @alice:localhost\n"), made.stderr)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            program.send(number)
        await wait_until(lambda: not program.is_running, "the end", sleep, CLEAN_EXIT_SECONDS)
        self.assertEqual(await program.stop(sleep), 0)
        self.assertNotIn("Traceback", program.log_tail())
        self.assertEqual((path.parent / "signing.key").stat().st_mode & 0o777, 0o600)
        await self._start(program, port)
        self.assertEqual(log_in(port), "@alice:localhost")
        self.assertEqual(await program.stop(sleep), 0)

    async def _start(self, program: Program, port: int) -> None:
        program.start()
        await program.wait_ready(lambda: answers_versions(port), sleep)


class RefusalTests(SynchronousTestCase):
    """A server that cannot start says why, and by its exit code whose fault it is."""

    def setUp(self) -> None:
        """Write a configuration for a port that is taken."""
        self.taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.taken.close)
        self.path = make_config(make_folder(self.mktemp()), self.taken.getsockname()[1])

    def test_an_unknown_key(self) -> None:
        """An unknown key is named with its file and line, and the exit code is 2."""
        text = self.path.read_text(encoding="utf-8")
        self.path.write_text(text + "\nnonsense: 1\n", encoding="utf-8")
        line = len(text.splitlines()) + 2
        for command in ("run", "check-config"):
            done = plait(command, "--config", str(self.path))
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, rf"{re.escape(str(self.path))}.*{line}.*nonsense")

    def test_a_taken_port(self) -> None:
        """A port that is taken is named in one sentence without a traceback, and the exit code is 1."""
        done = plait("run", "--config", str(self.path))
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(self.taken.getsockname()[1]), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
