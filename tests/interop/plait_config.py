"""A Plait's configuration for a loopback network."""

from __future__ import annotations

from typing import Any

from tests.interop.places import Place


def plait_config(place: Place) -> dict[str, Any]:
    """Configure one Plait: open registration, no rate limits, federation over the run's own authority."""
    database = place.database or f"sqlite:///{place.directory / 'homeserver.db'}"
    federation: dict[str, Any] = {"enabled": True, "trusted_key_servers": [], "public_rooms": True}
    if place.hurried:
        federation["max_backoff"] = 1
    return {
        "server_name": place.server_name,
        "data_dir": str(place.directory),
        "public_baseurl": f"{place.client_url}/",
        "listeners": [
            {"port": place.client_port, "bind": ["127.0.0.1"], "resources": ["client"]},
            {
                "port": place.federation_port,
                "bind": ["127.0.0.1"],
                "tls": {
                    "certificate": str(place.leaf.certificate),
                    "private_key": str(place.leaf.private_key),
                },
                "resources": ["federation"],
            },
        ],
        "database": {"url": database},
        "registration": {"mode": "open", "shared_secret": place.shared_secret},
        "rate_limits": {"enabled": False},
        "outbound": {"ip_denylist": [], "extra_ca_files": [str(place.authority.certificate)]},
        "federation": federation,
    }
