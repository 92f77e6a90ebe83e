"""Account data: what clients keep on the server for a user, globally and by room.

Also gives sync its part, the ignored users, and the private conversations (`m.direct`). Types that the
server itself keeps can be read, but not set, by clients.

Source: client-server-api/modules/account_data.md, modules/ignore_users.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from homeserver.events.nids import Block, Nids
from homeserver.events.persister import Persister
from homeserver.events.write import TakenBack, Write
from homeserver.sync.suppliers import AccountDatum
from homeserver.turns import Turns
from protocol.canonical_json import JsonObject, decode_own, encode_lax
from protocol.errors import BadJson, InvalidParam, MatrixError, NotFound
from protocol.identifiers import RoomID, UserID, parse_user_id
from storage import account_data
from storage.account_data import DATUM_NUMBERS, GLOBAL, DatumRow
from storage.database import Database, Transaction
from storage.feed import Entry, Kind, NewEntry

PUSH_RULES = "m.push_rules"
FULLY_READ = "m.fully_read"
IGNORED_USERS = "m.ignored_user_list"
DIRECT = "m.direct"
SERVER_MANAGED = frozenset({PUSH_RULES, FULLY_READ})
MAX_TYPES = 1000
MAX_TYPE_BYTES = 255
MAX_IGNORED = 10_000
_BLOCK = 100
_MAX_CACHED = 20_000


_Name = tuple[int, int, str]
"""User nid, room nid and type."""


class ServerManaged(BadJson):
    """The server keeps this type itself."""

    status = 405


class DefaultPushRules(Protocol):
    """Knows the push rules of a user who has changed none."""

    def content(self, user_id: UserID) -> bytes:
        """Give the content of `m.push_rules`, JSON."""
        ...


class AccountData:
    """The account data of local users."""

    def __init__(
        self, database: Database, persister: Persister, nids: Nids, default_rules: DefaultPushRules
    ) -> None:
        """Keep it in `database`."""
        self._database = database
        self._persister = persister
        self._nids = nids
        self._default_rules = default_rules
        self._numbers = Block(database, DATUM_NUMBERS, _BLOCK)
        self._turns: Turns[_Name] = Turns()

    async def get(self, user_nid: int, room_id: RoomID | None, event_type: str) -> JsonObject:
        """Give one piece; raises NotFound."""
        room_nid = await self._room(room_id)
        found = await self._database.read(account_data.one, user_nid, room_nid, event_type)
        if found is None and event_type == PUSH_RULES and room_id is None:
            found = await self.one(user_nid, PUSH_RULES)
        if found is None:
            raise NotFound("There is no such account data")
        content: JsonObject = decode_own(found)
        return content

    async def put(self, user_nid: int, room_id: RoomID | None, event_type: str, content: JsonObject) -> None:
        """Set one piece for a client.

        Raises:
            ServerManaged: the server keeps this type itself.
            InvalidParam, BadJson: the type is too long, the content has no right form, or there are too many.
            NotFound: no such room is known here.
        """
        if event_type in SERVER_MANAGED:
            raise ServerManaged(f"{event_type} cannot be set like this")
        if not 0 < len(event_type.encode("utf-8", "replace")) <= MAX_TYPE_BYTES:
            raise InvalidParam(f"A type must have 1 to {MAX_TYPE_BYTES} bytes")
        if event_type == IGNORED_USERS and room_id is None:
            _check_ignored(content)
        room_nid = await self._room(room_id)
        if await self._database.read(account_data.one, user_nid, room_nid, event_type) is None:
            count = await self._database.read(account_data.count, user_nid, room_nid)
            if count >= MAX_TYPES:
                raise InvalidParam(f"More than {MAX_TYPES} types of account data")
        await self.set(user_nid, room_nid, event_type, content)

    async def set(
        self,
        user_nid: int,
        room_nid: int,
        event_type: str,
        content: JsonObject,
        unless: Callable[[Transaction], bool] | None = None,
    ) -> None:
        """Set one piece for the server itself (`room_nid` 0: global); the user's clients hear of it.

        Raises `TakenBack` if what stands against it is so.
        """
        await self._numbers.ready(1)
        nid = self._numbers.take()
        row = DatumRow(room_nid, event_type, encode_lax(content))
        entry = NewEntry(
            Kind.ACCOUNT_DATA, room_nid=room_nid or None, user_nid=user_nid, ref=nid, payload=row
        )
        write = Write(
            (account_data.put_rows(user_nid, nid, row),), (entry,), size=len(row.content), unless=unless
        )
        await self._persister.commit(write)

    async def edit(
        self,
        user_nid: int,
        room_id: RoomID | None,
        event_type: str,
        change: Callable[[bytes | None], JsonObject | None],
    ) -> None:
        """Change one piece as it stands; changes at the same time, also by other workers, lose nothing.

        `change` is given the content, and gives the new one or None if it may stay; what it raises goes on.
        Raises NotFound for a room not known here.
        """
        name = (user_nid, await self._room(room_id), event_type)
        await self._turns.take(name)
        try:
            while not await self._try_to_edit(name, change):
                pass  # another worker has changed it meanwhile
        finally:
            self._turns.give(name)

    async def _try_to_edit(self, name: _Name, change: Callable[[bytes | None], JsonObject | None]) -> bool:
        before = await self._database.read(account_data.one, *name)
        after = change(before)
        if after is None:
            return True
        try:
            await self.set(*name, after, lambda tx: account_data.differs(tx, *name, before))
        except TakenBack:
            return False
        return True

    async def changed(self, user_nid: int, refs: Collection[int]) -> Sequence[AccountDatum]:
        """Give what these numbers stand for, as it is now."""
        return [_datum(row) for row in await self._database.read(account_data.by_nids, user_nid, refs)]

    async def everything(self, user_nid: int) -> Sequence[AccountDatum]:
        """Give all of a user's; push rules always are among it."""
        found = [_datum(row) for row in await self._database.read(account_data.of_user, user_nid)]
        if not any(each.type == PUSH_RULES and each.room_nid is None for each in found):
            found.append(AccountDatum(None, PUSH_RULES, await self._default(user_nid)))
        return found

    async def one(self, user_nid: int, event_type: str) -> bytes | None:
        """Give the content of one global type; push rules always are there."""
        found = await self._database.read(account_data.one, user_nid, GLOBAL, event_type)
        if found is None and event_type == PUSH_RULES:
            return await self._default(user_nid)
        return found

    async def _default(self, user_nid: int) -> bytes:
        user_id = (await self._nids.user_ids((user_nid,)))[user_nid]
        return self._default_rules.content(user_id)

    async def _room(self, room_id: RoomID | None) -> int:
        if room_id is None:
            return GLOBAL
        room_nid = await self._nids.room(room_id)
        if room_nid is None:
            raise NotFound("No such room is known here")
        return room_nid


class IgnoredUsers:
    """Whom users ignore, from memory where known. Bound: the users who asked lately."""

    def __init__(self, data: AccountData) -> None:
        """Read account data; `apply` must follow the feed."""
        self._data = data
        self._known: OrderedDict[int, frozenset[UserID]] = OrderedDict()
        self._changes = 0

    async def of(self, user_nid: int) -> frozenset[UserID]:
        """Give the users that a user ignores."""
        known = self._known.get(user_nid)
        if known is not None:
            return known
        changes = self._changes
        ignored = _ignored(await self._data.one(user_nid, IGNORED_USERS))
        if changes == self._changes:
            self._known[user_nid] = ignored
            if len(self._known) > _MAX_CACHED:
                self._known.popitem(last=False)
        return ignored

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed."""
        for entry in entries:
            if entry.kind == Kind.ACCOUNT_DATA and entry.room_nid is None and entry.user_nid is not None:
                self._changes += 1
                self._known.pop(entry.user_nid, None)


class DirectRooms:
    """Which rooms a user holds as private conversations."""

    def __init__(self, data: AccountData, nids: Nids) -> None:
        """Keep it as the account data `m.direct`."""
        self._data = data
        self._nids = nids

    async def get(self, user_id: UserID) -> Mapping[str, Any]:
        """Give the content of the user's `m.direct`."""
        found = await self._data.one(await self._nids.user(user_id), DIRECT)
        content: JsonObject = {} if found is None else decode_own(found)
        return content

    async def add(self, user_id: UserID, other: UserID, room_id: RoomID) -> None:
        """Note a room under the other user's name; additions at the same time lose nothing."""

        def added(before: bytes | None) -> JsonObject | None:
            content: JsonObject = {} if before is None else decode_own(before)
            held = content.get(other)
            rooms = held if isinstance(held, list) else []
            return None if room_id in rooms else {**content, other: [*rooms, room_id]}

        await self._data.edit(await self._nids.user(user_id), None, DIRECT, added)


def _datum(row: DatumRow) -> AccountDatum:
    return AccountDatum(row.room_nid or None, row.type, row.content)


def _check_ignored(content: JsonObject) -> None:
    """See that a list of ignored users has the right form; raises BadJson."""
    users = content.get("ignored_users", {})
    if not isinstance(users, dict) or len(users) > MAX_IGNORED:
        raise BadJson(f"ignored_users must be an object of at most {MAX_IGNORED} users")


def _ignored(content: bytes | None) -> frozenset[UserID]:
    users = {} if content is None else decode_own(content).get("ignored_users")
    ignored = set()
    for user in users if isinstance(users, dict) else ():
        try:
            ignored.add(parse_user_id(user))
        except MatrixError:
            continue
    return frozenset(ignored)
