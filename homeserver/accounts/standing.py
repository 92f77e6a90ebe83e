"""May this account log in, and may its tokens be used: the one place that says so (security L4)."""

from __future__ import annotations

from protocol.errors import UserDeactivated, UserLocked
from storage.accounts import AccountRow


def check_active(account: AccountRow) -> None:
    """See that an account has not been ended; raises UserDeactivated."""
    if account.deactivated:
        raise UserDeactivated("This account has been deactivated")


def check_may_log_in(account: AccountRow) -> None:
    """See that tokens may be issued to an account, by whatever way of login.

    Raises:
        UserDeactivated: it has been ended.
        UserLocked: it is locked.
    """
    check_active(account)
    if account.locked:
        raise UserLocked()
