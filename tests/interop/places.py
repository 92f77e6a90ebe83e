"""Where a server under test lives; its configuration is made from this."""

from __future__ import annotations

import secrets
from pathlib import Path

from attrs import field, frozen

from tests.interop.certificates import Leaf, TestAuthority


@frozen
class Place:
    """Where one server lives: its folder, its ports, its database.

    `public_port` is the port in the server's name; it equals `federation_port` unless a proxy stands
    between. `database` is a PostgreSQL DSN, or None for SQLite. `hurried` makes passwords cheap to hash
    and retries quick, where the server allows it: for tests, never for measurements.
    """

    directory: Path
    client_port: int
    federation_port: int
    public_port: int
    leaf: Leaf
    authority: TestAuthority
    database: str | None = None
    hurried: bool = True
    shared_secret: str = field(factory=lambda: secrets.token_hex(16))

    @property
    def server_name(self) -> str:
        """Give the server's Matrix name."""
        return f"localhost:{self.public_port}"

    @property
    def client_url(self) -> str:
        """Give the URL of the client API, without a slash at the end."""
        return f"http://127.0.0.1:{self.client_port}"
