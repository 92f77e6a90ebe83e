"""Accounts of this server: registration, login, sessions, devices, profiles, and what users keep here.

Nothing here knows HTTP; `client_api/` calls these services. What other clients of a user must hear of
(account data, ended sessions, profiles) is committed with a feed entry.
"""
