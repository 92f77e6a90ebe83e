"""Push rules of local users: read and edited through `protocol.push_rules`, kept as account data.

Source: client-server-api/modules/push.md, "Push Rules"; security D3.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from homeserver.accounts.account_data import PUSH_RULES, AccountData
from protocol.canonical_json import JsonObject, decode_own, dumps
from protocol.identifiers import UserID
from protocol.push_rules import PushRules, read_push_rules


class DefaultRules:
    """The push rules of users who have changed none."""

    def content(self, user_id: UserID) -> bytes:
        """Give the content of `m.push_rules`, JSON."""
        return dumps(PushRules(user_id).to_json())


@frozen(eq=False)
class UserPushRules:
    """Reads and edits the push rules of local users."""

    data: AccountData

    async def get(self, user_id: UserID, user_nid: int) -> PushRules:
        """Give a user's rules, the default ones included."""
        return _read(user_id, await self.data.one(user_nid, PUSH_RULES))

    async def edit(self, user_id: UserID, user_nid: int, change: Callable[[PushRules], PushRules]) -> None:
        """Change a user's rules, one change at a time; raises what `change` raises."""

        def changed(content: bytes | None) -> JsonObject | None:
            before = _read(user_id, content)
            after = change(before)
            return None if after == before else after.to_json()

        await self.data.edit(user_nid, None, PUSH_RULES, changed)


def _read(user_id: UserID, content: bytes | None) -> PushRules:
    return read_push_rules(user_id, None if content is None else decode_own(content))
