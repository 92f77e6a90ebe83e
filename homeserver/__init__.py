"""The domain services, and above them the composition root.

Sub-packages are the nouns of a homeserver: rooms, feed, sync, accounts, devices, ephemeral data.
They import `protocol` and `storage`, never an edge (`client_api`, `federation`): a service that
must reach an edge takes a small `typing.Protocol` it declares itself. `app.py` alone joins
everything, and `cli.py` starts it.
"""
