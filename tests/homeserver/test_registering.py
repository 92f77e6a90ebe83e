"""Tests of making accounts from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.loading import parse_config
from homeserver.registering import MAX_WAIT_SECONDS, RegistrationFailed, register_user

CONFIG = parse_config("server_name: plait.test\nregistration: {shared_secret: shared}\n", "x", {})
NONCE, MADE = (200, {"nonce": "n"}), (200, {"user_id": "@alice:plait.test"})
LATER = (429, {"errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 1500})
REFUSED = (400, {"errcode": "M_USER_IN_USE", "error": "This user name is taken"})


class RegisterUserTests(SynchronousTestCase):
    """`register_user`, against a server that answers by rote."""

    def serve(self, *answers: tuple[int, Any]) -> str:
        """Answer so many requests in turn; give the URL."""
        rest = list(answers)

        class Handler(BaseHTTPRequestHandler):
            """Gives the next answer."""

            def do_GET(self) -> None:
                """Answer."""
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content = rest.pop(0)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)

        def work() -> None:
            for _ in answers:
                server.handle_request()
            server.server_close()

        thread = Thread(target=work)
        thread.start()
        self.addCleanup(thread.join)
        return f"http://127.0.0.1:{server.server_port}"

    def register(self, url: str, sleep: Callable[[float], None]) -> str:
        """Register Alice."""
        return register_user(CONFIG, url, "alice", "a password", admin=False, sleep=sleep)

    def test_many_in_a_row(self) -> None:
        """Where the server says when to come again, that is waited for."""
        waited: list[float] = []
        url = self.serve(LATER, NONCE, LATER, LATER, MADE)
        self.assertEqual(self.register(url, waited.append), "@alice:plait.test")
        self.assertEqual(waited, [1.5, 1.5, 1.5])

    def test_refusals(self) -> None:
        """A refusal is told as the server gives it, and one that asks for too long a wait at once."""
        for answers, sentence in (
            ((NONCE, REFUSED), "This user name is taken"),
            (((429, LATER[1] | {"retry_after_ms": MAX_WAIT_SECONDS * 1000 + 1}),), "Too many requests"),
            (((429, []),), "answered 429"),
            (((200, []),), "nonsense"),
        ):
            error = self.assertRaises(RegistrationFailed, self.register, self.serve(*answers), self.fail)
            self.assertIn(sentence, str(error))
