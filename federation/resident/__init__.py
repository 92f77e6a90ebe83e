"""What this server does for others as a server in a room: handing out templates, taking in handshakes.

`access` finds the room and applies its ACL, `making` answers make_join, make_leave and make_knock,
`taking` send_join, send_leave and send_knock, `invited` takes invites to local users. The paths and the
forms of the answers are in `federation.routes`.
"""
