"""The database and nothing else: engines, migrations, the state trie and one small store per noun.

A store is a handful of functions or a small class with explicit SQL at the top of its file; rows
become frozen classes at once. One SQL text serves SQLite and PostgreSQL; what differs lives in the
engine modules. Imports `protocol` alone.
"""
