"""Rooms as users see them: making, joining, inviting, upgrading, naming and publishing them.

What an event is and how it is committed is `homeserver.events`; here stand the rules of the client API
on top: which events an action needs, and what is checked before. Actions that need another server go
through the small protocols of `ports.py`, which `federation` implements.
"""
