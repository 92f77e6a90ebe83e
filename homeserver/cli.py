"""The command line: `plait run|generate-config|check-config|register-user|version`.

Exit codes: 0 fine, 1 failure, 2 bad usage or configuration.
"""

from __future__ import annotations

import secrets
import sys
from importlib import metadata
from pathlib import Path

import click

from homeserver.config.loading import ConfigError, load_config
from homeserver.config.sample import sample_config, write_private
from homeserver.config.sections import Config
from homeserver.registering import RegistrationFailed, register_user
from protocol.errors import MatrixError
from protocol.identifiers import parse_server_name

_CONFIG = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("homeserver.yaml"),
    show_default=True,
    help="The configuration file.",
)


@click.group()
def main() -> None:
    """Run and tend a Plait homeserver."""


@main.command()
@_CONFIG
def run(path: Path) -> None:
    """Run the homeserver until SIGTERM or SIGINT."""
    config = _load(path)
    # The reactor is installed by the import, which other commands should not pay for.
    from homeserver.process import run_homeserver

    sys.exit(run_homeserver(config, path))


@main.command()
@click.option("--server-name", required=True, help="The name behind the colon of user IDs.")
@click.option("--data-dir", default="data", show_default=True, help="Folder for keys and database.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file to write; standard output if not given."
)
def generate_config(server_name: str, data_dir: str, output: Path | None) -> None:
    """Write a commented configuration for a new server."""
    try:
        parse_server_name(server_name)
    except MatrixError as error:
        raise click.BadParameter(error.error, param_hint="--server-name") from None
    text = sample_config(server_name, data_dir, secrets.token_urlsafe(32))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        write_private(output, text)
    except FileExistsError:
        raise click.ClickException(f"{output} exists already; it is left as it is") from None
    click.echo(f"Wrote {output}")


@main.command()
@_CONFIG
def check_config(path: Path) -> None:
    """Read the configuration and say what is wrong with it, or what deserves a thought."""
    config = _load(path)
    for warning in _warnings(config):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{path}: fine")


@main.command("register-user")
@_CONFIG
@click.option("--admin", is_flag=True, help="Give the user administrator's rights.")
@click.option("--url", help="Base URL of the running server, if not the first client listener's.")
@click.option(
    "--password", prompt=True, hide_input=True, confirmation_prompt=True, help="Asked for if not given."
)
@click.argument("username")
def register_user_command(path: Path, admin: bool, url: str | None, password: str, username: str) -> None:
    """Make an account on the running server, in every registration mode."""
    config = _load(path)
    try:
        user_id = register_user(config, url, username, password, admin=admin)
    except RegistrationFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Registered {user_id}")


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"plait {metadata.version('plait')}")


def _load(path: Path) -> Config:
    try:
        return load_config(path)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _warnings(config: Config) -> list[str]:
    warnings = []
    if config.registration.mode == "open":
        warnings.append("registration.mode: open lets anyone make accounts")
    if not config.outbound.verify_certificates:
        warnings.append("outbound.verify_certificates: false lets anyone on the way pose as another server")
    if not config.outbound.ip_denylist:
        warnings.append("outbound.ip_denylist: [] lets other servers make this one dial private addresses")
    if not config.rate_limits.enabled:
        warnings.append("rate_limits.enabled: false leaves the server without limits")
    return warnings
