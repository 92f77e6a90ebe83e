"""Sending to other servers: a queue for each destination that is a position in the feed.

`sender` follows the feed and hands each event to the destinations `audience` names; `destination` sends
to one server, one transaction at a time; `catch_up` reads from the database what a server missed;
`edus` are the sources of what is no event; `transaction` is the form on the wire; `shards` shares the
work among processes. Nothing is lost by a restart: what a destination has not confirmed is behind its
position, or its shard's, and is sent again.
"""
