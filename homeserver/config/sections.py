"""The sections of `homeserver.yaml` as frozen classes: every key, its type and its default.

The commented file `homeserver.yaml` at the top of the project is checked against these classes by a
test. Durations are in seconds, sizes in bytes, unless a name says otherwise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from homeserver.secret import Secret

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]

PRIVATE_RANGES = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b::/96",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all sections share: immutable, and an unknown key is a mistake."""


class ListenerResource(StrEnum):
    """What a listener may serve."""

    CLIENT = "client"
    FEDERATION = "federation"
    WEB = "web"
    METRICS = "metrics"


class ListenerTls(Section, frozen=True, kw_only=True):
    """The certificate chain and key of a TLS listener, as PEM files."""

    certificate: str
    private_key: str


class Listener(Section, frozen=True, kw_only=True):
    """One port and what it serves."""

    port: Port = 8008
    bind: tuple[str, ...] = ("127.0.0.1",)
    tls: ListenerTls | None = None
    resources: tuple[ListenerResource, ...] = (
        ListenerResource.CLIENT,
        ListenerResource.FEDERATION,
        ListenerResource.WEB,
    )
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose `X-Forwarded-For` is believed."""
    compress: bool = False
    """Whether answers go out compressed to clients that take it; a proxy in front does it better."""


class Database(Section, frozen=True, kw_only=True):
    """Where everything durable lives."""

    url: str = "sqlite:///homeserver.db"
    pool_size: Positive = 4


class RegistrationMode(StrEnum):
    """Who may make an account."""

    OPEN = "open"
    TOKEN = "token"  # noqa: S105 (a mode, not a secret)
    CLOSED = "closed"


class Registration(Section, frozen=True, kw_only=True):
    """How accounts are made."""

    mode: RegistrationMode = RegistrationMode.CLOSED
    shared_secret: Secret | None = None
    tokens: tuple[Secret, ...] = ()


class JwtAlgorithm(StrEnum):
    """Signature algorithms an outside issuer may use."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


class JwtLogin(Section, frozen=True, kw_only=True):
    """Login by a JSON Web Token of an outside issuer (`org.matrix.login.jwt`)."""

    enabled: bool = False
    algorithm: JwtAlgorithm = JwtAlgorithm.HS256
    key: Secret | None = None
    """The shared secret (HS256) or the issuer's public key in PEM."""
    issuer: str | None = None
    audiences: tuple[str, ...] = ()
    subject_claim: str = "sub"


class PasswordLogin(Section, frozen=True, kw_only=True):
    """Passwords kept by this server."""

    enabled: bool = True
    minimum_length: Positive = 8


class Sessions(Section, frozen=True, kw_only=True):
    """Life of access and refresh tokens, in seconds; 0 means until revoked."""

    access_token_lifetime: NotNegative = 0
    refreshable_access_token_lifetime: NotNegative = 300
    refresh_token_lifetime: NotNegative = 0


class Auth(Section, frozen=True, kw_only=True):
    """How users prove who they are."""

    password: PasswordLogin = PasswordLogin()
    jwt: JwtLogin = JwtLogin()
    sessions: Sessions = Sessions()
    query_tokens: bool = True
    """Whether access tokens may come in the query string, as old clients send them."""


class Rate(Section, frozen=True, kw_only=True):
    """A token bucket: so many a second in the long run, so many at once."""

    per_second: NotNegative
    burst: Positive


class RateLimits(Section, frozen=True, kw_only=True):
    """Requests allowed; `scale` multiplies all rates and bursts."""

    enabled: bool = True
    scale: NotNegative = 1.0
    reads: Rate = Rate(per_second=50, burst=200)
    writes: Rate = Rate(per_second=20, burst=100)
    messages: Rate = Rate(per_second=10, burst=50)
    joins: Rate = Rate(per_second=1, burst=20)
    invites: Rate = Rate(per_second=1, burst=20)
    rooms: Rate = Rate(per_second=0.5, burst=10)
    login: Rate = Rate(per_second=0.2, burst=10)
    registration: Rate = Rate(per_second=0.2, burst=5)
    ephemeral: Rate = Rate(per_second=10, burst=50)
    federation: Rate = Rate(per_second=50, burst=500)


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on sizes and counts."""

    body_bytes: Positive = 1_048_576
    text_message_chars: Positive = 5000
    connections_per_user: Positive = 20
    delivery_status_members: Annotated[int, msgspec.Meta(ge=0)] = 20
    requests_waiting: Positive = 2000


class Outbound(Section, frozen=True, kw_only=True):
    """Every request this server makes: federation and whatever else leaves it."""

    ip_denylist: tuple[str, ...] = PRIVATE_RANGES
    ip_allowlist: tuple[str, ...] = ()
    extra_ca_files: tuple[str, ...] = ()
    verify_certificates: bool = True


class TrustedKeyServer(Section, frozen=True, kw_only=True):
    """A notary that is asked for other servers' keys."""

    server_name: str
    verify_keys: dict[str, str] = {}
    """Key ID to unpadded base64 public key; empty: learnt from the notary itself over TLS."""


class Federation(Section, frozen=True, kw_only=True):
    """Talk with other servers."""

    enabled: bool = True
    allow_list: tuple[str, ...] | None = None
    trusted_key_servers: tuple[TrustedKeyServer, ...] = ()
    default_room_version: str = "12"
    public_rooms: bool = False
    request_timeout: NotNegative = 30.0
    max_backoff: NotNegative = 86_400.0


class Presence(Section, frozen=True, kw_only=True):
    """Whether users see who is online."""

    enabled: bool = True


class Caches(Section, frozen=True, kw_only=True):
    """One memory budget in bytes for events, state nodes, room heads and the feed's tail."""

    budget: Positive = 24 * 1024 * 1024


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe messages that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Logging(Section, frozen=True, kw_only=True):
    """What is logged, and how."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.CONSOLE


class Metrics(Section, frozen=True, kw_only=True):
    """Prometheus metrics, on listeners with the resource `metrics`."""

    enabled: bool = True


class WebSocket(Section, frozen=True, kw_only=True):
    """The WebSocket client API."""

    enabled: bool = True
    allowed_origins: tuple[str, ...] = ()
    """Exact origins of web pages that may open a socket; empty: any page (no cookie authenticates)."""
    heartbeat: NotNegative = 30.0
    frame_bytes: Positive = 1_048_576
    window_frames: Positive = 64
    window_bytes: Positive = 4 * 1024 * 1024
    compression: bool = False


class Config(Section, frozen=True, kw_only=True):
    """The whole of `homeserver.yaml`."""

    server_name: str
    public_baseurl: str | None = None
    data_dir: str = "data"
    listeners: tuple[Listener, ...] = (Listener(),)
    database: Database = Database()
    registration: Registration = Registration()
    auth: Auth = Auth()
    rate_limits: RateLimits = RateLimits()
    limits: Limits = Limits()
    outbound: Outbound = Outbound()
    federation: Federation = Federation()
    presence: Presence = Presence()
    websocket: WebSocket = WebSocket()
    caches: Caches = Caches()
    admins: tuple[str, ...] = ()
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
