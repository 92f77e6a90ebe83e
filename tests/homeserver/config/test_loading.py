"""Tests of reading `homeserver.yaml`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml
from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.loading import ConfigError, load_config, parse_config
from homeserver.config.sample import sample_config, write_private
from homeserver.config.sections import Config, RegistrationMode, Section
from homeserver.secret import Secret

SAMPLE = Path(__file__).parents[3] / "homeserver.yaml"


def parse(text: str, **environment: str) -> Config:
    """Parse a configuration with a server name and the given further text."""
    return parse_config("server_name: example.org\n" + text, "homeserver.yaml", environment)


class SampleTests(SynchronousTestCase):
    """The commented file agrees with the classes."""

    def test_every_key_stands_with_its_default(self) -> None:
        """Loading the commented file gives the defaults, and no key of a section is missing there."""
        self.assertEqual(load_config(SAMPLE, {}), Config(server_name="localhost"))
        self._assert_complete(Config(server_name="localhost"), yaml.safe_load(SAMPLE.read_text()), "")

    def _assert_complete(self, section: Section, plain: dict[str, object], path: str) -> None:
        fields = {field.name for field in msgspec.structs.fields(section)}
        self.assertEqual(set(plain), fields, path)
        for name in fields:
            value, there = getattr(section, name), plain[name]
            if isinstance(value, tuple) and value and isinstance(value[0], Section):
                value, there = value[0], there[0]  # type: ignore[index]
            if isinstance(value, Section):
                self.assertIsInstance(there, dict)
                self._assert_complete(value, there, f"{path}.{name}")  # type: ignore[arg-type]

    def test_generated_config_is_valid_and_private(self) -> None:
        """A generated file loads, holds what was asked for, and only its owner may read it."""
        path = Path(self.mktemp()) / "homeserver.yaml"
        write_private(path, sample_config("127.0.0.1:8448", "it's here", "s3cr3t-4: #x"))
        config = load_config(path, {})
        self.assertEqual((config.server_name, config.data_dir), ("127.0.0.1:8448", "it's here"))
        self.assertEqual(config.registration.shared_secret, Secret("s3cr3t-4: #x"))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertRaises(FileExistsError, write_private, path, "")


class MistakeTests(SynchronousTestCase):
    """A mistake is told with its line and key."""

    def assert_refused(self, text: str, *parts: str) -> None:
        """Parse after a first line with the server name; the message has all `parts`."""
        error = self.assertRaises(ConfigError, parse, text)
        for part in parts:
            self.assertIn(part, str(error))

    def test_unknown_key(self) -> None:
        """An unknown key is named with its line."""
        self.assert_refused(
            "database:\n  uri: sqlite:///x\n", "homeserver.yaml:3:", "database.uri", "unknown key"
        )
        self.assert_refused("listners: []\n", "homeserver.yaml:2:", "listners", "unknown key")

    def test_wrong_type(self) -> None:
        """A value of a wrong type is named with its line, inside lists too."""
        self.assert_refused("listeners:\n  - port: 8008\n  - port: many\n", ":4:", "listeners[1].port", "int")
        self.assert_refused("workers_: 1\nadmins: 3\n", ":2:", "workers_")

    def test_out_of_range(self) -> None:
        """A value out of range is named."""
        self.assert_refused("listeners: [{port: 70000}]\n", ":2:", "listeners[0].port", "65535")
        self.assert_refused("websocket: {heartbeat: .inf}\n", ":2:", "websocket.heartbeat")
        self.assert_refused("auth: {sessions: {access_token_lifetime: .nan}}\n", "access_token_lifetime")

    def test_nonsense_values(self) -> None:
        """Values that fit their type but not their meaning are named."""
        self.assert_refused("database: {url: mysql://x}\n", "database.url")
        self.assert_refused(
            "outbound:\n  ip_denylist: [10.0.0.0/8, nonsense]\n", ":3:", "outbound.ip_denylist"
        )
        self.assert_refused("admins: ['@a:elsewhere.org']\n", "admins[0]")
        self.assert_refused("federation: {default_room_version: '99'}\n", "federation.default_room_version")
        self.assert_refused("registration: {shared_secret: changeme}\n", "registration.shared_secret")

    def test_broken_yaml(self) -> None:
        """Broken YAML, a key given twice, aliases and tags are refused with a line (security: A4)."""
        self.assert_refused("listeners: [\n", "homeserver.yaml:")
        self.assert_refused("data_dir: a\ndata_dir: b\n", ":3:", "twice")
        self.assert_refused("data_dir: &x a\npublic_baseurl: *x\n", "aliases")
        self.assert_refused("data_dir: !!python/object/apply:os.system [ls]\n", "homeserver.yaml:")

    def test_missing_file(self) -> None:
        """A file that cannot be read is told."""
        self.assertRaises(ConfigError, load_config, Path(self.mktemp()), {})


class ValueTests(SynchronousTestCase):
    """Environment variables and secrets in files."""

    def test_environment(self) -> None:
        """`${NAME}` is taken from the environment; an unset one is an error."""
        self.assertEqual(parse("data_dir: /srv/${NAME}/x\n", NAME="plait").data_dir, "/srv/plait/x")
        self.assertRaises(ConfigError, parse, "data_dir: ${NAME}\n")

    def test_numbers_from_the_environment(self) -> None:
        """A variable is read as a number or truth value where one is wanted, and as text elsewhere."""
        config = parse(
            "listeners:\n  - port: ${PORT}\n    compress: '${YES}'\nrate_limits: {scale: '${SCALE}'}\n"
            "registration: {mode: token, shared_secret: '${PORT}', tokens: ['${YES}']}\n",
            PORT="8123",
            YES="true",
            SCALE="0.5",
        )
        (listener,) = config.listeners
        self.assertEqual((listener.port, listener.compress, config.rate_limits.scale), (8123, True, 0.5))
        self.assertEqual(config.registration.shared_secret, Secret("8123"))
        self.assertEqual(config.registration.tokens, (Secret("true"),))
        for value in ("many", "8123.5", "[1]", "!!int x", "70000", ""):
            error = self.assertRaises(ConfigError, parse, "listeners:\n  - port: ${PORT}\n", PORT=value)
            self.assertIn(":3: listeners[0].port", str(error))
        self.assertRaises(ConfigError, parse, "listeners: [{port: '8123'}]\n", PORT="8123")

    def test_secret_from_a_file(self) -> None:
        """`shared_secret_file` reads the secret from a file, and a secret never shows (security: A2)."""
        path = Path(self.mktemp())
        path.write_text("marked-secret\n")
        config = parse(f"registration: {{shared_secret_file: {path}}}\n")
        self.assertEqual(config.registration.shared_secret, Secret("marked-secret"))
        self.assertNotIn("marked-secret", repr(config))

    def test_tokens_and_database_from_files(self) -> None:
        """A file of tokens has one on each line; the database's URL may be a secret as well."""
        tokens, url = Path(self.mktemp()), Path(self.mktemp())
        tokens.write_text("first\nsecond\n")
        url.write_text("postgresql://plait:marked@localhost/plait\n")
        config = parse(
            f"registration: {{mode: token, tokens_file: {tokens}}}\ndatabase: {{url_file: {url}}}\n"
        )
        self.assertEqual(config.registration.tokens, (Secret("first"), Secret("second")))
        self.assertEqual(config.database.url, "postgresql://plait:marked@localhost/plait")

    def test_secret_beside_the_configuration(self) -> None:
        """A relative path of a secret begins at the folder of the configuration."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "secret").write_text("marked-secret")
        (folder / "homeserver.yaml").write_text(
            "server_name: example.org\nregistration: {shared_secret_file: secret}\n"
        )
        config = load_config(folder / "homeserver.yaml", {})
        self.assertEqual(config.registration.shared_secret, Secret("marked-secret"))

    def test_secret_and_file(self) -> None:
        """A secret is given once: as it is or as a file, whichever stands first."""
        path = Path(self.mktemp())
        path.write_text("marked-secret\n")
        for lines in (
            ("shared_secret: x", f"shared_secret_file: {path}"),
            (f"shared_secret_file: {path}", "shared_secret: x"),
        ):
            text = "registration:\n  " + "\n  ".join(lines) + "\n"
            self.assertIn(":4: ", str(self.assertRaises(ConfigError, parse, text)))

    def test_null_means_default(self) -> None:
        """A key set to null has its default, also that of a secret's file."""
        self.assertIsNone(parse("registration: {shared_secret_file: null}\n").registration.shared_secret)
        self.assertEqual(parse("registration: {mode: null}\n").registration.mode, RegistrationMode.CLOSED)
