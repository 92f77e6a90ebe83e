"""The client edge: one route table served over HTTP and over the WebSocket.

A file per endpoint family, each ending in its `routes()`. Handlers are thin: typed request in, a
service call or a few, an answer out. Imports services of `homeserver`, types of `storage`, and
`protocol`; never `federation`.
"""
