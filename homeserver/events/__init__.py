"""The life of an event: built on the head of its room, authorized, committed in a group, told to the feed.

`sending` builds local events, `receiving` places those of other servers; both hand `Write`s to the one
`Persister`. `heads` is where each room stands, `event_store` and `room_state` read what is stored.
Imports `protocol` and `storage`; knows nothing of HTTP.
"""
