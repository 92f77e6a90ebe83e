"""Reading `homeserver.yaml`: YAML in, a frozen `Config` out, or an error that names key and line.

`${NAME}` in a value is taken from the environment, and read as a number where one is wanted. Every secret may
instead be given as a file: key `shared_secret_file` holds the path, from the folder of the configuration, of
a file whose content, stripped, is `shared_secret`. A file of a list, `tokens_file`, has an item on each line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from attrs import field, frozen

from homeserver.config.checking import check
from homeserver.config.sections import Config
from homeserver.secret import Secret

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_MAX_BYTES = 1_000_000
_HERE = Path()
_SECRET_FILES: Mapping[str, Callable[[str], object]] = {
    "shared_secret_file": str.strip,
    "key_file": str.strip,
    "url_file": str.strip,
    "tokens_file": str.split,
}
"""Keys that name a file in place of a secret, and how the file's text is read."""


class ConfigError(Exception):
    """The configuration is wrong; the message names file, line and key."""


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read and validate a configuration file; relative paths in it are left as they are.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a key is unknown, mistyped or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_config(text, str(path), environment, path.parent)


def parse_config(text: str, name: str, environment: Mapping[str, str], folder: Path = _HERE) -> Config:
    """Validate a configuration, called `name` in messages; relative paths of secrets begin at `folder`."""
    tree = _compose(text, name)
    try:
        config = _convert(tree, _Values(environment, folder))
    except _BadNode as error:
        raise ConfigError(f"{name}:{error.line}: {error}") from None
    except msgspec.ValidationError as error:
        line, message = _explain(tree, str(error))
        raise ConfigError(f"{name}:{line}: {message}") from None
    problem = check(config)
    if problem is not None:
        raise ConfigError(f"{name}:{_line_of(tree, problem.key)}: {problem.key}: {problem.message}")
    return config


def _convert(tree: yaml.MappingNode, values: _Values) -> Config:
    """Make the configuration; raise _BadNode or ValidationError.

    What comes from the environment is text, and is read as YAML only where text will not do: a secret of
    digits stays one.
    """
    while True:
        try:
            return msgspec.convert(values.of(tree), Config, dec_hook=_decode_secret)
        except msgspec.ValidationError as error:
            node = _node_at(tree, _key_and_message(str(error))[0])
            if node not in values.from_environment or node in values.read_as_yaml:
                raise
            values.read_as_yaml.add(node)


class _BadNode(Exception):
    """Something is wrong at a line of the file."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def _compose(text: str, name: str) -> yaml.MappingNode:
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{name}: larger than {_MAX_BYTES} bytes")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError(f"{name}: YAML aliases (*name) are not allowed here")
        tree = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(tree, yaml.MappingNode):
        raise ConfigError(f"{name}:1: expected keys and values at the top level")
    return tree


@frozen
class _Values:
    """Reads the values of a tree, with variables of the environment and secrets in files."""

    environment: Mapping[str, str]
    folder: Path
    from_environment: set[yaml.Node] = field(factory=set)
    """Nodes that name variables."""
    read_as_yaml: set[yaml.Node] = field(factory=set)
    """Those whose text, once the variables are in, is to be read as YAML reads it."""

    def of(self, node: yaml.Node) -> Any:
        """Give a node as Python values; raise _BadNode."""
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item) for item in node.value]
        value = _scalar(node)
        if not isinstance(value, str) or _VARIABLE.search(value) is None:
            return value
        self.from_environment.add(node)
        text = _VARIABLE.sub(lambda match: self._variable(node, match.group(1)), value)
        if node not in self.read_as_yaml:
            return text
        loader: Any = yaml.SafeLoader("")
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        read = _scalar(yaml.ScalarNode(tag, text, node.start_mark))
        return text if read is None else read

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, read = key_node.value, None
            value = self.of(value_node)
            if key in _SECRET_FILES:
                read, key = _SECRET_FILES[key], key.removesuffix("_file")
            if not isinstance(key, str) or key in plain:
                raise _BadNode(key_node, f"{key}: the key is given twice")
            if value is not None:
                plain[key] = value if read is None else read(self._text(value_node, value))
        return plain

    def _text(self, node: yaml.Node, path: object) -> str:
        try:
            return (self.folder / str(path)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _BadNode(node, f"the secret's file cannot be read: {error}") from None

    def _variable(self, node: yaml.Node, name: str) -> str:
        if name not in self.environment:
            raise _BadNode(node, f"the environment has no variable {name}")
        return self.environment[name]


def _scalar(node: yaml.Node) -> Any:
    """Give the value of a node that holds no others; raise _BadNode."""
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise _BadNode(node, str(error)) from None


def _decode_secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str) and value:
        return Secret(value)
    raise ValueError("Expected a text that is not empty")


def _explain(tree: yaml.MappingNode, error: str) -> tuple[int, str]:
    """Turn a conversion error into a line and a sentence that names the key."""
    key, message = _key_and_message(error)
    unknown = _UNKNOWN.search(message)
    if unknown:
        key = f"{key}.{unknown.group(1)}".lstrip(".")
        message = "unknown key"
    return _line_of(tree, key), f"{key}: {message}" if key else message


def _key_and_message(error: str) -> tuple[str, str]:
    """Take a conversion error apart."""
    found = _PATH.search(error)
    return (found.group(1).lstrip("."), error[: found.start()]) if found else ("", error)


def _line_of(tree: yaml.MappingNode, key: str) -> int:
    *_, (line, _node) = ((1, tree), *_way_to(tree, key))
    return line


def _node_at(tree: yaml.MappingNode, key: str) -> yaml.Node:
    """Give the node of a key, or of the last one on the way that is there."""
    *_, (_line, node) = ((1, tree), *_way_to(tree, key))
    return node


def _way_to(tree: yaml.MappingNode, key: str) -> Iterator[tuple[int, yaml.Node]]:
    """Give lines and nodes on the way to a dotted key, as far as they are there."""
    node: yaml.Node = tree
    for name, index in _STEP.findall("." + key):
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value in (name, name + "_file")), None)
            if pair is None:
                return
            node = pair[1]
            yield pair[0].start_mark.line + 1, node
        elif isinstance(node, yaml.SequenceNode) and index.isdigit() and int(index) < len(node.value):
            node = node.value[int(index)]
            yield node.start_mark.line + 1, node
