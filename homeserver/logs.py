"""Log lines: one event a line, for people or as JSON, safe against what strangers put into them.

Control characters are escaped, so a header or a name from outside cannot forge a line, and a long
text is cut. Access tokens in query strings are masked.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure

from homeserver.config.sections import LogFormat, Logging

MAX_TEXT = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TOKEN = re.compile(r"((?:access_token|ticket)=)[^&\s\"']+")


def start_logging(config: Logging, stream: TextIO = sys.stderr) -> None:
    """Send the log to `stream` from now on, as configured."""
    globalLogBeginner.beginLoggingTo([make_observer(config, stream)], redirectStandardIO=False)


def make_observer(config: Logging, stream: TextIO) -> Any:
    """Make the observer that writes lines of the configured format and level."""
    render = render_json if config.format is LogFormat.JSON else render_console

    def write(event: LogEvent) -> None:
        stream.write(render(event) + "\n")
        stream.flush()

    threshold: Any = LogLevelFilterPredicate(LogLevel.levelWithName(config.level.value))
    # Twisted tells of every connection and timeout at `info`; only its warnings matter to an admin.
    for namespace in ("twisted", "txaio", "treq", "log_legacy"):
        threshold.setLogLevelForNamespace(namespace, LogLevel.warn)
    # Autobahn warns of every frame of a client that is too large or malformed.
    threshold.setLogLevelForNamespace("autobahn", LogLevel.error)
    observer: Any = write
    return FilteringLogObserver(observer, [threshold])


def clean(text: str) -> str:
    """Escape control characters, mask tokens, and cut what is over `MAX_TEXT` characters."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    return _TOKEN.sub(r"\1***", _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text))


def render_console(event: LogEvent) -> str:
    """Render an event for people; a traceback follows on indented lines."""
    line = (
        f"{_time(event)} {_level(event):<5} [{event.get('log_namespace', '-')}] {clean(formatEvent(event))}"
    )
    trace = _traceback(event)
    return line + "".join(f"\n    {clean(part)}" for part in trace)


def render_json(event: LogEvent) -> str:
    """Render an event as one JSON object."""
    fields: dict[str, object] = {
        "time": _time(event),
        "level": _level(event),
        "source": str(event.get("log_namespace", "-")),
        "message": clean(formatEvent(event)),
    }
    trace = _traceback(event)
    if trace:
        fields["traceback"] = [clean(part) for part in trace]
    return json.dumps(fields, ensure_ascii=False)


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return level.name if level is not None else "info"


def _traceback(event: LogEvent) -> list[str]:
    failure = event.get("log_failure")
    return failure.getTraceback().splitlines() if isinstance(failure, Failure) else []
