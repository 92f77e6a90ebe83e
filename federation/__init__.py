"""The server edge: discovery, keys, X-Matrix, inbound routes and outbound queues.

Every PDU that enters, by whatever door, passes `protocol.checks` and becomes an `Event` there.
Imports services of `homeserver`, types of `storage`, and `protocol`; never `client_api`.
"""
