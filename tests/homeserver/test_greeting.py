"""Tests of what a server says when it is ready."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.sections import Config, Listener, ListenerResource, Registration
from homeserver.greeting import next_steps
from homeserver.secret import Secret


class GreetingTests(SynchronousTestCase):
    """The words fit the configuration."""

    def test_a_new_server_says_how_to_go_on(self) -> None:
        """The client URL, the command that makes an account, and the page are named."""
        config = Config(server_name="localhost", registration=Registration(shared_secret=Secret("s3cr3t")))
        text = "\n".join(next_steps(config, Path("data/homeserver.yaml")))
        self.assertIn("http://127.0.0.1:8008", text)
        self.assertIn("plait register-user --config data/homeserver.yaml NAME", text)
        self.assertNotIn("s3cr3t", text)

    def test_what_is_not_served_is_not_named(self) -> None:
        """A listener for servers alone names neither URL nor page, and no command without a secret."""
        only = Listener(port=8448, resources=(ListenerResource.FEDERATION,))
        self.assertEqual(next_steps(Config(server_name="localhost", listeners=(only,)), Path("x")), [])
