"""Run the tests under trial and close with one plain line: `N passed, N failed, N skipped`.

Tests whose program is missing on this machine are skipped with a line that says so; with
PLAIT_TEST_NO_SKIPS set, as in continuous integration, a skipped test is a failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

_SUMMARY = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?$", re.MULTILINE)
_JOBS = "2"


def main(targets: Sequence[str]) -> int:
    """Run `targets` (packages, modules or tests) and give the exit code."""
    command = [sys.executable, "-m", "twisted.trial", "--jobs", _JOBS, "--reporter", "text", *targets]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        output.append(line)
    code = process.wait()
    counts = _counts("".join(output))
    failed = counts.get("failures", 0) + counts.get("errors", 0) + counts.get("unexpectedSuccesses", 0)
    skipped = counts.get("skips", 0)
    passed = counts.get("successes", 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    if skipped and os.environ.get("PLAIT_TEST_NO_SKIPS"):
        print("Tests were skipped, and PLAIT_TEST_NO_SKIPS forbids it.")
        return 1
    if passed == 0:
        print("No test ran.")
        return 1
    return code


def _counts(output: str) -> dict[str, int]:
    found = _SUMMARY.findall(output)
    if not found:
        return {"errors": 1}
    pairs = (part.split("=") for part in found[-1].split(", ") if "=" in part)
    return {name: int(number) for name, number in pairs}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["tests"]))
