"""The life of an event: built on the head of its room, authorized, committed in a group, told to the feed.

`sending` builds events of local users on the head in memory, `rebuilding` those that lost it, `creating`
those of new rooms; all use `building`. They hand `write.Write`s to the one `persister.Persister`, whose
transaction is `commit_batch`. `heads` is where each room stands, `event_store` and `room_state` read what is
stored, `nids` numbers names, `clocks` and `members` keep what follows from state.
Imports `protocol` and `storage`; knows nothing of HTTP.
"""
