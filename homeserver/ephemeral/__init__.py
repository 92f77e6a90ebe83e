"""What passes: receipts, typing, presence. The last value of each wins.

Receipts are kept in the database; typing and presence live in memory, on a ring with a counter of its
own whose place is part of the sync token.
"""
