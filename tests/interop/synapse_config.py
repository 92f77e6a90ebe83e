"""The part of a Synapse's configuration that differs from what Synapse generates for itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.interop.places import Place

UNLIMITED: dict[str, float] = {"per_second": 1_000_000, "burst_count": 1_000_000}
RATE_LIMITS: dict[str, Any] = {
    "rc_message": UNLIMITED,
    "rc_registration": UNLIMITED,
    "rc_registration_token_validity": UNLIMITED,
    "rc_login": {"address": UNLIMITED, "account": UNLIMITED, "failed_attempts": UNLIMITED},
    "rc_admin_redaction": UNLIMITED,
    "rc_joins": {"local": UNLIMITED, "remote": UNLIMITED},
    "rc_joins_per_room": UNLIMITED,
    "rc_key_requests": UNLIMITED,
    "rc_3pid_validation": UNLIMITED,
    "rc_invites": {"per_room": UNLIMITED, "per_user": UNLIMITED, "per_issuer": UNLIMITED},
    "rc_third_party_invite": UNLIMITED,
    "rc_media_create": UNLIMITED,
    "rc_presence": {"per_user": UNLIMITED},
    "rc_delayed_event_mgmt": UNLIMITED,
    "rc_room_creation": UNLIMITED,
    "rc_reports": UNLIMITED,
    "rc_user_directory": UNLIMITED,
    "rc_profile": UNLIMITED,
    "rc_federation": {
        "window_size": 1,
        "sleep_limit": 1_000_000,
        "sleep_delay": 0,
        "reject_limit": 1_000_000,
        "concurrent": 1000,
    },
    "federation_rr_transactions_per_room_per_second": 1_000_000,
}
QUICK_RETRIES: dict[str, Any] = {
    "destination_min_retry_interval": "1s",
    "destination_retry_multiplier": 1,
    "destination_max_retry_interval": "1s",
    "max_short_retry_delay": "1s",
    "max_long_retry_delay": "1s",
}


def synapse_config(place: Place) -> dict[str, Any]:
    """Configure one Synapse process for a loopback network with its own certificate authority."""
    config: dict[str, Any] = {
        "server_name": place.server_name,
        "public_baseurl": f"{place.client_url}/",
        "tls_certificate_path": str(place.leaf.certificate),
        "tls_private_key_path": str(place.leaf.private_key),
        "listeners": [
            _listener(place.client_port, "client", tls=False),
            _listener(place.federation_port, "federation", tls=True),
        ],
        "database": _database(place),
        "federation_custom_ca_list": [str(place.authority.certificate)],
        "ip_range_blacklist": [],
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "registration_shared_secret": place.shared_secret,
        "allow_public_rooms_over_federation": True,
        "room_list_publication_rules": [{"action": "allow"}],
        **RATE_LIMITS,
    }
    if place.hurried:
        config |= {"bcrypt_rounds": 4, "federation": QUICK_RETRIES}
    return config


def _listener(port: int, resource: str, *, tls: bool) -> dict[str, Any]:
    """Describe one loopback listener."""
    return {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "type": "http",
        "tls": tls,
        "resources": [{"names": [resource], "compress": False}],
    }


def _database(place: Place) -> dict[str, Any]:
    """Describe the database: SQLite in the server's folder, or PostgreSQL by the place's DSN."""
    if place.database is None:
        return {"name": "sqlite3", "args": {"database": str(place.directory / "homeserver.db")}}
    url = urlsplit(place.database)
    args = {"user": url.username, "dbname": url.path.lstrip("/"), "host": url.hostname, "port": url.port}
    args |= dict(parse_qsl(url.query))
    settings = {key: value for key, value in args.items() if value is not None}
    return {
        "name": "psycopg2",
        "args": {**settings, "cp_min": 5, "cp_max": 10},
        "allow_unsafe_locale": True,
    }
