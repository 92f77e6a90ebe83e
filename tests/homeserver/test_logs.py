"""Tests of log lines."""

from __future__ import annotations

import io
import json

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.sections import LogFormat, Logging, LogLevel
from homeserver.logs import MAX_TEXT, make_observer


class LogTests(SynchronousTestCase):
    """What reaches the log."""

    def lines(self, config: Logging, message: str, **fields: object) -> list[str]:
        """Log one error and give the lines written."""
        stream = io.StringIO()
        logger = Logger(namespace="test", observer=make_observer(config, stream))
        logger.error(message, **fields)
        return stream.getvalue().splitlines()

    def test_a_newline_from_outside_stays_on_its_line(self) -> None:
        """An injected newline and escape sequence cannot forge a line (security: D13)."""
        for form in LogFormat:
            lines = self.lines(Logging(format=form), "peer said {text}", text="x\n2026 ERROR forged\x1b[0m")
            self.assertEqual(len(lines), 1)
            self.assertNotIn("\x1b", lines[0])

    def test_long_text_is_cut(self) -> None:
        """A megabyte in a message is cut (security: D13)."""
        (line,) = self.lines(Logging(), "{text}", text="y" * 1_000_000)
        self.assertLess(len(line), MAX_TEXT + 200)

    def test_tokens_in_urls_are_masked(self) -> None:
        """An access token or ticket in a query string never reaches the log (security: L15)."""
        for name in ("access_token", "ticket"):
            (line,) = self.lines(Logging(), "GET {uri}", uri=f"/sync?{name}=marked-token&since=s1")
            self.assertNotIn("marked-token", line)

    def test_json_lines_parse(self) -> None:
        """With format json every line is an object with time, level, source and message."""
        (line,) = self.lines(Logging(format=LogFormat.JSON), "hello {name}", name="wörld")
        self.assertEqual(json.loads(line)["message"], "hello wörld")
        self.assertEqual(set(json.loads(line)), {"time", "level", "source", "message"})

    def test_level_and_traceback(self) -> None:
        """Lines below the level are dropped; a failure brings its traceback."""
        stream = io.StringIO()
        logger = Logger(namespace="test", observer=make_observer(Logging(level=LogLevel.ERROR), stream))
        logger.info("quiet")
        try:
            raise ValueError("reason")
        except ValueError:
            logger.failure("it broke")
        self.assertNotIn("quiet", stream.getvalue())
        self.assertIn("reason", stream.getvalue())
