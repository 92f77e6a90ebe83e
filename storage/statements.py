"""One SQL text for both engines: find the placeholders once, write each engine's dialect.

Knows literals, quoted names and comments, so a `?` or `%` inside them is left alone. `IN ?` takes a
list: SQLite gets a row of placeholders, padded to a few lengths so that few statements are prepared;
PostgreSQL gets `= ANY (%s)` with one array literal, which is also right for an empty list. `UTF8(column)`
reads bytes that are known to be UTF-8: SQLite gives them as they are, PostgreSQL as text, since to write
bytes as digits and read them back costs both sides more than all else about a row.
Not a query builder: the text stays as its store wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from attrs import frozen

_TOKENS = re.compile(
    r"""
    (?P<skip> '(?:[^']|'')*' | "[^"]*" | --[^\n]* | \$\$.*?\$\$ )
  | (?P<list> \b(?:NOT\s+)?IN\s+\? )
  | (?P<lock> \s*\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|SHARE)\b
              (?:\s+OF\s+\w+)?(?:\s+(?:SKIP\s+LOCKED|NOWAIT))? )
  | (?P<utf8> \bUTF8\((?P<column>[\w.]+)\) )
  | (?P<rows> \bVALUES\s+\?(?!\w) )
  | (?P<mark> \? )
  | (?P<percent> % )
  | (?P<end> ; )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

SQLITE_MAX_VARIABLES = 32_766


@frozen
class Statement:
    """A parsed SQL text.

    `sqlite` and `postgres` are ready to run when `lists` is empty; `lists` names the placeholders
    (counted from 0) that take a list, and `pieces` is the SQLite text cut at every placeholder.
    """

    sqlite: str
    postgres: str
    pieces: tuple[str, ...]
    lists: tuple[int, ...]


@lru_cache(maxsize=4096)
def parse(sql: str) -> Statement:
    """Parse a statement; cached by its text, which is a constant of some store."""
    pieces: list[str] = [""]
    postgres: list[str] = []
    lists: list[int] = []
    end = 0
    for found in _TOKENS.finditer(sql):
        between, token, kind = sql[end : found.start()], found.group(), found.lastgroup
        end = found.end()
        pieces[-1] += between
        postgres.append(between)
        if kind == "list":
            lists.append(len(pieces) - 1)
            pieces[-1] += token[:-1]
            pieces.append("")
            postgres.append("<> ALL (%s)" if token[:1] in "nN" else "= ANY (%s)")
        elif kind == "mark":
            pieces.append("")
            postgres.append("%s")
        elif kind == "utf8":
            pieces[-1] += found["column"]
            postgres.append(f"convert_from({found['column']}, 'UTF8')")
        else:
            pieces[-1] += "" if kind == "lock" else token
            postgres.append(token.replace("%", "%%"))
    pieces[-1] += sql[end:]
    postgres.append(sql[end:])
    return Statement("?".join(pieces), "".join(postgres), tuple(pieces), tuple(lists))


def expand_for_sqlite(statement: Statement, args: Sequence[object]) -> tuple[str, list[object]]:
    """Write `(?, ?, …)` for each list argument; give the text and the flat arguments."""
    text: list[str] = [statement.pieces[0]]
    flat: list[object] = []
    for index, (arg, piece) in enumerate(zip(args, statement.pieces[1:], strict=True)):
        if index in statement.lists:
            values = _padded(list(arg))  # type: ignore[call-overload]  # a list by contract
            text.append("(" + ",".join("?" * len(values)) + ")")
            flat.extend(values)
        else:
            text.append("?")
            flat.append(arg)
        text.append(piece)
    return "".join(text), flat


def _padded(values: list[object]) -> list[object]:
    """Repeat the last value until the length is 1, 2, 3, 4, 6, 8, 12, 16, 24, …: few distinct statements."""
    count = len(values)
    if count <= 4:
        return values
    power = 1 << (count - 1).bit_length()
    target = power * 3 // 4 if count <= power * 3 // 4 else power
    return values + values[-1:] * (min(target, max(count, SQLITE_MAX_VARIABLES // 2)) - count)


def array_literal(values: Sequence[object]) -> str:
    """Write a list as a PostgreSQL array literal of unknown type, which takes the type of its column."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


_ARRAY_TYPES: dict[type, str] = {int: "bigint", str: "text", bytes: "bytea"}
_PLACES = re.compile(r"\(\s*\?(?:\s*,\s*\?)*\s*\)")
MANY_ROWS = 8


def columns_as_arrays(rows: Sequence[Sequence[object]]) -> list[tuple[str, str]] | None:
    """Write each column of many rows as an array: its element's type in PostgreSQL, and the literal.

    A third of what the same rows cost as a list of placeholders, on our side. None for few rows, and where a
    column has values of several types, or NULL.
    """
    if len(rows) < MANY_ROWS:
        return None
    arrays = []
    for column in zip(*rows, strict=True):
        kinds = set(map(type, column))
        kind = _ARRAY_TYPES.get(kinds.pop()) if len(kinds) == 1 else None
        if kind is None:
            return None
        arrays.append((kind, array_literal(column)))
    return arrays


def insert_from_arrays(sql: str, rows: Sequence[Sequence[object]]) -> tuple[str, list[str]] | None:
    """Write an INSERT of many rows for PostgreSQL with an array for each column: the text, and its arrays.

    Half of what the same rows cost as a list of placeholders on our side, and three quarters on the
    server's. None for few rows, for a row that is not places alone, and where a column has values of several
    types or of one that is not known to fit its column.
    """
    parts = split_row_template(sql)
    if len(rows) < MANY_ROWS or parts is None or _PLACES.fullmatch(parts[1]) is None:
        return None
    selected: list[str] = []
    arrays: dict[str, tuple[str, str]] = {}
    for number, column in enumerate(zip(*rows, strict=True)):
        kinds = set(map(type, column)) - {type(None)}
        if not kinds:
            selected.append("NULL")
            continue
        kind = _ARRAY_TYPES.get(kinds.pop()) if len(kinds) == 1 else None
        if kind is None:
            return None
        selected.append(f"c{number}")
        arrays[f"c{number}"] = kind, array_literal(column)
    if not arrays:
        return None
    head, tail = parse(parts[0]).postgres.rstrip()[: -len("VALUES")], parse(parts[2]).postgres
    marks = ", ".join(f"%s::{kind}[]" for kind, _ in arrays.values())
    text = f"{head}SELECT {', '.join(selected)} FROM unnest({marks}) AS r({', '.join(arrays)}){tail}"
    return text, [literal for _, literal in arrays.values()]


def _element(value: object) -> str:
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bytes):
        return '"\\\\x' + value.hex() + '"'
    if value is None:
        return "NULL"
    raise TypeError(f"a list of {type(value).__name__} cannot be an SQL argument")


@lru_cache(maxsize=1024)
def split_rows(sql: str) -> tuple[str, str]:
    """Cut `… VALUES ? …` at the question mark, for `Transaction.values`."""
    for found in _TOKENS.finditer(sql):
        if found.lastgroup == "rows":
            return sql[: found.end() - 1], sql[found.end() :]
    raise ValueError(f"no 'VALUES ?' in {sql!r}")


@lru_cache(maxsize=1024)
def split_row_template(sql: str) -> tuple[str, str, str] | None:
    """Cut `INSERT … VALUES (…) …` into what stands before, the row, and what stands after.

    None when the statement has no such row: it is then run once for each row.
    """
    start = re.search(r"\bVALUES\s*(?=\()", sql, re.IGNORECASE)
    if start is None:
        return None
    depth = 0
    for index in range(start.end(), len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[index], 0)
        if depth == 0:
            return sql[: start.end()], sql[start.end() : index + 1], sql[index + 1 :]
    raise ValueError(f"unbalanced parentheses in {sql!r}")


def row_placeholders(columns: int, rows: int) -> str:
    """Write `(?,?),(?,?)` for so many rows of so many columns."""
    return ",".join(["(" + ",".join("?" * columns) + ")"] * rows)


def split_script(script: str) -> list[str]:
    """Cut a script into its statements, leaving out empty ones."""
    statements: list[str] = []
    start = 0
    for found in _TOKENS.finditer(script):
        if found.lastgroup == "end":
            statements.append(script[start : found.start()])
            start = found.end()
    statements.append(script[start:])
    return [text.strip() for text in statements if re.sub(r"--[^\n]*", "", text).strip()]


def has_nul(args: Sequence[object]) -> bool:
    """Tell whether a text argument contains U+0000, which no engine here may store."""
    return any("\0" in arg for arg in args if arg.__class__ is str)
