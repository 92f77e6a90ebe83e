"""SQL texts are read right: placeholders, lists, literals, comments, scripts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from storage.statements import (
    array_literal,
    expand_for_sqlite,
    insert_from_arrays,
    parse,
    split_row_template,
    split_rows,
    split_script,
)


class ParseTests(SynchronousTestCase):
    """`parse` and what it feeds."""

    def test_marks_in_literals_and_comments_are_text(self) -> None:
        """A `?` or `%` inside a literal, a quoted name or a comment is not a placeholder."""
        sql = "SELECT '?''%', \"a?\" -- ?\nFROM t WHERE a = ? AND b LIKE '%x' AND c % 2 = ?"
        parsed = parse(sql)
        self.assertEqual(parsed.sqlite, sql)
        self.assertEqual(parsed.postgres.replace("%%", "%").replace("%s", "?"), sql)
        self.assertEqual(parsed.postgres.count("%s"), 2)
        self.assertEqual(len(parsed.pieces), 3)

    def test_inserts_from_arrays(self) -> None:
        """An INSERT of many rows has an array a column on PostgreSQL, wherever types and row allow it."""
        sql = "INSERT INTO t (a, b, c) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        rows: list[tuple[object, ...]] = [(n, None, b"") for n in range(8)]
        self.assertEqual(
            insert_from_arrays(sql, rows),
            (
                "INSERT INTO t (a, b, c) SELECT c0, NULL, c2"
                " FROM unnest(%s::bigint[], %s::bytea[]) AS r(c0, c2) ON CONFLICT DO NOTHING",
                ["{0,1,2,3,4,5,6,7}", array_literal([b""] * 8)],
            ),
        )
        nothing: list[tuple[object, ...]] = [(None, None, None)] * 8
        for text, given in (
            (sql, rows[1:]),
            (sql, nothing),
            (sql, [*rows, (True, None, b"")]),
            (sql, [*rows, (1.5, None, b"")]),
            ("INSERT INTO t (a, b, c) VALUES (?, coalesce(?, ''), ?)", rows),
            ("UPDATE t SET a = ?, b = ? WHERE c = ?", rows),
        ):
            self.assertIsNone(insert_from_arrays(text, given))

    def test_lists(self) -> None:
        """`IN ?` becomes placeholders on SQLite and an array on PostgreSQL."""
        parsed = parse("SELECT 1 WHERE a IN ? AND b = ? AND c not  in ?")
        self.assertEqual(parsed.postgres, "SELECT 1 WHERE a = ANY (%s) AND b = %s AND c <> ALL (%s)")
        text, args = expand_for_sqlite(parsed, [[1, 2], "x", []])
        self.assertEqual(text, "SELECT 1 WHERE a IN (?,?) AND b = ? AND c not  in ()")
        self.assertEqual(args, [1, 2, "x"])

    def test_long_lists_have_few_lengths(self) -> None:
        """Lists up to 10,000 long are padded to less than thirty lengths, all within what SQLite binds."""
        parsed = parse("SELECT 1 WHERE a IN ?")
        lengths = set()
        for count in [*range(1, 300), *range(300, 10_001, 97), 10_000]:
            _, args = expand_for_sqlite(parsed, [list(range(count))])
            self.assertEqual(set(args), set(range(count)))
            lengths.add(len(args))
        self.assertLess(len(lengths), 30)
        self.assertLessEqual(max(lengths), 32_766)

    def test_row_locks_are_dropped_on_sqlite(self) -> None:
        """`FOR UPDATE` and its kin stand on PostgreSQL alone."""
        for lock in (" FOR UPDATE", " for no key update of t skip locked", "\nFOR SHARE NOWAIT"):
            parsed = parse(f"SELECT a FROM t{lock}")
            self.assertEqual(parsed.sqlite, "SELECT a FROM t")
            self.assertEqual(parsed.postgres, f"SELECT a FROM t{lock}")

    def test_text_kept_as_bytes(self) -> None:
        """`UTF8(column)` is text on PostgreSQL alone; its arguments stay where they are."""
        parsed = parse("SELECT UTF8(e.pdu) FROM e WHERE a = ? AND b IN ?")
        self.assertEqual(
            parsed.postgres, "SELECT convert_from(e.pdu, 'UTF8') FROM e WHERE a = %s AND b = ANY (%s)"
        )
        self.assertEqual(parsed.sqlite, "SELECT e.pdu FROM e WHERE a = ? AND b IN ?")
        self.assertEqual((parsed.pieces[0], parsed.lists), ("SELECT e.pdu FROM e WHERE a = ", (1,)))

    def test_array_literals(self) -> None:
        """Elements are quoted so that no text can end its literal."""
        self.assertEqual(array_literal([1, None, True]), "{1,NULL,1}")
        self.assertEqual(array_literal(['a"b\\', "NULL"]), '{"a\\"b\\\\","NULL"}')
        self.assertEqual(array_literal([b"\0a"]), '{"\\\\x0061"}')
        with self.assertRaises(TypeError):
            array_literal([1.5])

    def test_rows(self) -> None:
        """`VALUES ?` and `VALUES (…)` are found where they are."""
        self.assertEqual(
            split_rows("INSERT INTO t VALUES ? RETURNING a"), ("INSERT INTO t VALUES ", " RETURNING a")
        )
        sql = "INSERT INTO t (a, b) VALUES (?, coalesce(?, 0)) ON CONFLICT (a) DO NOTHING"
        parts = ("INSERT INTO t (a, b) VALUES ", "(?, coalesce(?, 0))", " ON CONFLICT (a) DO NOTHING")
        self.assertEqual(split_row_template(sql), parts)
        self.assertIsNone(split_row_template("UPDATE t SET a = ?"))
        with self.assertRaises(ValueError):
            split_rows("INSERT INTO t VALUES (?)")

    def test_scripts(self) -> None:
        """A script is cut at semicolons outside of literals, comments and dollar quotes."""
        script = "-- one; two\nA ';' B; ;\n-- end\nC $$ x; y $$\n;-- tail;\n"
        self.assertEqual(split_script(script), ["-- one; two\nA ';' B", "-- end\nC $$ x; y $$"])
