"""Server ACLs: which servers may take part in a room.

Compiled once for each change of the state, then asked often. Nonsense in the event counts as absent.

Source: client-server-api/modules/server_acls.md; server-server-api.md, "Server Access Control Lists".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from protocol.globs import Glob
from protocol.identifiers import ServerName, is_ip_literal, split_server_name
from protocol.limits import MAX_ACL_ENTRIES, MAX_GLOB_LENGTH


@frozen
class _Entries:
    """A list of patterns: those without wildcards and those of the form `*.name` are looked up, not tried."""

    names: frozenset[str]
    suffixes: frozenset[str]
    globs: tuple[Glob, ...]

    def match(self, host: str) -> bool:
        """Tell whether any pattern matches a host in lower case."""
        if host in self.names:
            return True
        dot = host.find(".")
        while dot >= 0 and self.suffixes:
            if host[dot:] in self.suffixes:
                return True
            dot = host.find(".", dot + 1)
        return any(glob.matches(host) for glob in self.globs)


def _entries(value: object) -> _Entries:
    """Compile a list of patterns, passing over what is none; anything but a list is an empty one."""
    names, suffixes, globs = set(), set(), []
    patterns = value[:MAX_ACL_ENTRIES] if isinstance(value, list) else []
    for pattern in patterns:
        if not isinstance(pattern, str) or len(pattern) > MAX_GLOB_LENGTH:
            continue
        lowered = pattern.lower()
        bare = lowered.removeprefix("*")
        if "*" in bare or "?" in bare:
            globs.append(Glob(pattern))
        elif bare == lowered:
            names.add(lowered)
        elif bare.startswith("."):
            suffixes.add(bare)
        else:
            globs.append(Glob(pattern))
    return _Entries(frozenset(names), frozenset(suffixes), tuple(globs))


@frozen
class ServerAcl:
    """The ACL of a room's present state."""

    _allow: _Entries
    _deny: _Entries
    _allow_ip_literals: bool

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ServerAcl:
        """Compile the content of an `m.room.server_acl` event; a room without one has no ACL at all."""
        return cls(
            _entries(content.get("allow")),
            _entries(content.get("deny")),
            content.get("allow_ip_literals") is not False,
        )

    def allows(self, server: ServerName) -> bool:
        """Tell whether a server may take part; its port does not matter, nor does case."""
        host = split_server_name(server)[0].lower()
        if not self._allow_ip_literals and is_ip_literal(host):
            return False
        return not self._deny.match(host) and self._allow.match(host)
