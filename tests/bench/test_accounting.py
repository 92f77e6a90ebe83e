"""CPU time of process trees is complete."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from bench.accounting import cpu_ms, resident_mb, tree

WORK = "import time\nwhile time.process_time() < 0.2: pass\n"


class CpuTests(SynchronousTestCase):
    """`cpu_ms` counts living and ended children."""

    def test_counts_an_ended_child(self) -> None:
        """The time of a child that ended and was reaped stays in its parent's account."""
        before = cpu_ms(os.getpid())
        subprocess.run([sys.executable, "-c", WORK], check=True)
        self.assertGreaterEqual(cpu_ms(os.getpid()) - before, 180)

    def test_finds_a_living_child(self) -> None:
        """A living child belongs to the tree, and its memory counts."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            self.assertIn(child.pid, tree(os.getpid()))
            self.assertGreater(resident_mb(os.getpid()), resident_mb(child.pid))
            child.communicate(b"\n")

    def test_a_process_that_is_gone_costs_nothing(self) -> None:
        """A process that ended before it was looked at counts as zero."""
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            pass
        self.assertEqual(cpu_ms(child.pid), 0.0)
