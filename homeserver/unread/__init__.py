"""Unread notifications: counted from markers by class and mask, with rows only for the exceptions.

`rules.py` says what is needed of push rules, `evaluation.py` judges each event once for each distinct set
of rules, in the transaction that commits it, `counts.py` counts and then follows the feed.
"""
