"""The endpoints that other servers call, a file for each family, each ending in its `routes()`.

Handlers read the request, call a part of this package or a service, and lay out the answer. Requests
are authenticated before (`Auth.SERVER`): `call.origin` is proved. Room IDs, event IDs and users in a path
are read here; that the origin may act for them is judged where it is acted on.
"""
