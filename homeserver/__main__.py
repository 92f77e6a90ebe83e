"""`python -m homeserver --config FILE` is `plait run --config FILE`."""

from homeserver.cli import run

if __name__ == "__main__":
    run(prog_name="python -m homeserver")
