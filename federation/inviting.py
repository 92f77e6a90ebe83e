"""Having the server of an invited user sign the invite.

Source: server-server-api.md, "Inviting to a room".
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.asking import told
from federation.failures import Refused
from federation.handshakes import Handshakes
from protocol.errors import IncompatibleRoomVersion, MatrixError, UnsupportedRoomVersion
from protocol.events import Event
from protocol.identifiers import server_of

_OLD_SERVER = frozenset({400, 404})


@frozen
class Inviting:
    """Sends invites to the servers of the invited."""

    handshakes: Handshakes

    async def invite(self, invite: Event, state: Sequence[Event]) -> Event:
        """Give the invite as both servers signed it; raises what may be told of a refusal.

        `state` shows the room to the invited: full events, the create event among them.
        """
        assert invite.state_key is not None
        server = server_of(invite.state_key)
        try:
            return await self.handshakes.invite(server, invite, state)
        except Refused as refused:
            if invite.version.hashed_event_ids or refused.http_status not in _OLD_SERVER:
                raise _told(refused) from None
        try:
            return await self.handshakes.invite_old(server, invite, state)
        except MatrixError as error:
            raise _told(error) from None


def _told(error: MatrixError) -> MatrixError:
    """Give a refusal as the inviting client knows it."""
    known = told(error)
    return UnsupportedRoomVersion(known.error) if isinstance(known, IncompatibleRoomVersion) else known
