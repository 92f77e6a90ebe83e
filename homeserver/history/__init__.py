"""What a user may read of a room beside sync: history, context, relations, threads, state, members.

`visibility.py` decides, for every endpoint, who may see which event. `access.py` tells how far a user may
look into a room at all. The rest is one file a topic; all render through `homeserver.sync.render`.
"""
