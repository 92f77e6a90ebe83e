"""What changed for one session since a token: the delta behind `/sync` and the WebSocket.

`delta.py` is the way in: `SessionFeed.delta(session, since, options)`. It asks `sources.py` for the feed's
entries (from the ring in memory or from the database, as one algorithm), sorts the user's rooms
(`rooms.py`), and lets one file a topic render its part: `timeline.py`, `state.py`, `summary.py`,
`left.py`, `invites.py`, `extras.py`. What all joined recipients share is rendered once
(`shared.py`); what concerns one recipient never enters the shared bytes. `waiting.py` wakes the
sessions that an entry concerns. May import `protocol`, `storage` and its sibling services.

Source: client-server-api/_index.md, "Syncing".
"""
