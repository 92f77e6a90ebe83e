"""Push rules of local users: read and edited through `protocol.push_rules`, kept as account data.

Source: client-server-api/modules/push.md, "Push Rules"; security D3.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from homeserver.accounts.account_data import PUSH_RULES, AccountData
from homeserver.turns import Turns
from protocol.canonical_json import decode_own, dumps
from protocol.identifiers import UserID
from protocol.push_rules import PushRules, read_push_rules
from storage.account_data import GLOBAL


class DefaultRules:
    """The push rules of users who have changed none."""

    def content(self, user_id: UserID) -> bytes:
        """Give the content of `m.push_rules`, JSON."""
        return dumps(PushRules(user_id).to_json())


@frozen(eq=False)
class UserPushRules:
    """Reads and edits the push rules of local users."""

    data: AccountData
    _turns: Turns[int] = field(factory=Turns)

    async def get(self, user_id: UserID, user_nid: int) -> PushRules:
        """Give a user's rules, the default ones included."""
        content = await self.data.one(user_nid, PUSH_RULES)
        return read_push_rules(user_id, None if content is None else decode_own(content))

    async def edit(self, user_id: UserID, user_nid: int, change: Callable[[PushRules], PushRules]) -> None:
        """Change a user's rules, one change at a time; raises what `change` raises."""
        await self._turns.take(user_nid)
        try:
            before = await self.get(user_id, user_nid)
            after = change(before)
            if after != before:
                await self.data.set(user_nid, GLOBAL, PUSH_RULES, after.to_json())
        finally:
            self._turns.give(user_nid)
