"""Which members a session was already given, for lazy loading.

A member counts as known only from the position of the answer that carried it: a client that asks again
from an older position gets it again. Bound: `size` members over all sessions, least recently used
sessions go first; what is forgotten is merely sent again.

Source: client-server-api/_index.md, "Lazy-loading room members".
"""

from __future__ import annotations

from collections import OrderedDict

from homeserver.sync.session import Session
from protocol.identifiers import DeviceID

_Sent = dict[tuple[int, str], tuple[int, int]]


class SentMembers:
    """By session: (room, user ID) to (nid of the member event, position of the answer)."""

    def __init__(self, size: int = 200_000) -> None:
        """Start with nothing sent."""
        self._size = size
        self._count = 0
        self._sent: OrderedDict[tuple[int, DeviceID], _Sent] = OrderedDict()

    def forget(self, session: Session) -> None:
        """Begin anew with a session's first sync."""
        gone = self._sent.pop((session.user_nid, session.device_id), None)
        self._count -= len(gone or ())

    def knows(self, session: Session, room_nid: int, user_id: str, nid: int, since: int) -> bool:
        """Tell whether the client has this member event, if it has all up to `since`."""
        sent = self._sent.get((session.user_nid, session.device_id))
        if sent is None:
            return False
        known = sent.get((room_nid, user_id))
        return known is not None and known[0] == nid and known[1] <= since

    def note(self, session: Session, room_nid: int, user_id: str, nid: int, pos: int) -> None:
        """Note a member event given in the answer that ends at `pos`."""
        key = (session.user_nid, session.device_id)
        sent = self._sent.setdefault(key, {})
        self._sent.move_to_end(key)
        before = len(sent)
        sent[room_nid, user_id] = (nid, pos)
        self._count += len(sent) - before
        while self._count > self._size and len(self._sent) > 1:
            self._count -= len(self._sent.popitem(last=False)[1])
