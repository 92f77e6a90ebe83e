"""The first configuration of a new server: the commented file with its few own values filled in."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path


def sample_config(server_name: str, data_dir: str, shared_secret: str) -> str:
    """Give the text of `homeserver.yaml` for a new server; the caller makes the secret."""
    text = resources.files("homeserver.config").joinpath("homeserver.yaml").read_text(encoding="utf-8")
    for key, old, new in (
        ("server_name", "localhost", server_name),
        ("data_dir", "data", data_dir),
        ("  shared_secret", "null", shared_secret),
    ):
        line = f"\n{key}: {old}\n"
        if text.count(line) != 1:
            raise ValueError(f"the sample has no single line for {key.strip()}")
        text = text.replace(line, f"\n{key}: {_quoted(new)}\n")
    return text


def write_private(path: Path, text: str) -> None:
    """Write a new file that its owner alone may read; its folder is made likewise.

    Raises:
        FileExistsError: the file is there; it is not touched.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _quoted(value: str) -> str:
    plain = value.replace("-", "").replace("_", "").replace(".", "").replace("/", "")
    if plain.isalnum() and not value[0].isdigit():
        return value
    return "'" + value.replace("'", "''") + "'"
