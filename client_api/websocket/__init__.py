"""The WebSocket client API, subprotocol `plait.v1.json`; see protocol/spec.md, chapter 4.

A socket (`transport.py`) carries frames of a connection (`connection.py`), whose states are the table in
`protocol.session`. What a client asks goes through the same dispatch as HTTP (`commands.py`); what changed
is pushed by a `Pusher`, which keeps nothing per client but its place. `registry.py` knows all connections.
"""
