"""Tests of the keys on disk."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from homeserver.key_files import BadKeyFile, load_or_make_keys, load_or_make_secret


class KeyFileTests(SynchronousTestCase):
    """Keys are made once and kept."""

    def test_a_key_is_made_once(self) -> None:
        """The second start reads what the first has made; two servers differ (security: K3, L1)."""
        path, other = Path(self.mktemp()) / "signing.key", Path(self.mktemp()) / "signing.key"
        made = load_or_make_keys(path)
        again = load_or_make_keys(path)
        self.assertEqual(made.signing.sign(b"x"), again.signing.sign(b"x"))
        self.assertEqual(made.signing.key_id, again.signing.key_id)
        self.assertNotEqual(made.signing.sign(b"x"), load_or_make_keys(other).signing.sign(b"x"))
        secret, second = Path(self.mktemp()), Path(self.mktemp())
        self.assertEqual(load_or_make_secret(secret), load_or_make_secret(secret))
        self.assertNotEqual(load_or_make_secret(secret), load_or_make_secret(second))

    def test_only_the_owner_may_read(self) -> None:
        """The file is created for its owner alone, whatever the umask (security: K4)."""
        path = Path(self.mktemp()) / "signing.key"
        before = os.umask(0)
        try:
            load_or_make_keys(path)
        finally:
            os.umask(before)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_old_keys_are_read(self) -> None:
        """Expired keys stand on further lines."""
        path = Path(self.mktemp())
        load_or_make_keys(path)
        public = "Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw"
        path.write_text(path.read_text() + f"ed25519 old {public} expired 1500\n")
        (old,) = load_or_make_keys(path).expired
        self.assertEqual((old.key_id, old.expired_ts), ("ed25519:old", 1500))

    def test_nonsense_is_told(self) -> None:
        """A file that holds something else is an error with its line, never overwritten."""
        for text in ("", "rsa x y\n", "ed25519 a short\n"):
            path = Path(self.mktemp())
            path.write_text(text)
            self.assertRaises(BadKeyFile, load_or_make_keys, path)
            self.assertEqual(path.read_text(), text)

    def test_bytes_that_are_no_text(self) -> None:
        """A file that is no text is told as any other that holds no key."""
        path = Path(self.mktemp())
        path.write_bytes(b"\xff\xfe")
        self.assertRaises(BadKeyFile, load_or_make_keys, path)
        self.assertRaises(BadKeyFile, load_or_make_secret, path)

    def test_others_may_read(self) -> None:
        """If others may read a key or a secret the operator is warned (security: K4)."""
        for load in (load_or_make_keys, load_or_make_secret):
            path = Path(self.mktemp())
            load(path)
            for mode, warnings in ((0o600, 0), (0o640, 1)):
                path.chmod(mode)
                with capturedLogs() as logs:
                    load(path)
                told = [event for event in logs if str(path) in str(event.get("path"))]
                self.assertEqual(len(told), warnings, (load, mode))
