"""Tests of sessions over a real database."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.accounts.registration import Newcomer
from homeserver.accounts.requester import Requester
from homeserver.accounts.sessions import Granted
from homeserver.config.sections import Auth, Sessions
from homeserver.events.write import Write
from protocol.errors import Forbidden, MatrixError, UnknownToken, UserDeactivated, UserLocked
from protocol.identifiers import UserID
from storage import registration_tokens
from storage.database import Database, Transaction
from storage.engines import open_database
from tests.homeserver.accounts.helpers import NOW, PASSWORD, World, make_world
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase

MINUTE = 60_000


class SessionsContract:
    """What sessions do on every engine."""

    database: Database
    url: str

    async def _world(self, **options: Any) -> World:
        world = await make_world(self.database, **options)
        self.addCleanup(world.stop)
        return world

    async def _ask(self, world: World, token: str, now: int = NOW) -> Requester:
        return await world.parts.sessions.requester(token, ip="1.2.3.4", user_agent="test", now=now)

    async def _refused(self, awaitable: Any, error: type[MatrixError] = UnknownToken) -> MatrixError:
        try:
            await awaitable
        except error as found:
            return found
        raise AssertionError(f"no {error.__name__}")

    async def test_a_token_names_its_device(self) -> None:
        """Checked once in the database, then from memory."""
        world = await self._world()
        account = await world.register()
        granted = await world.login(account)
        await world.parts.accounts.set_flag(account, "suspended", True)
        first = await self._ask(world, granted.access_token)
        self.assertEqual((first.user_id, first.device_id), (account.user_id, "PHONE"))
        self.assertIs(await self._ask(world, granted.access_token), first)

    async def test_a_fresh_token_needs_no_query(self) -> None:
        """A token made here stands without being looked up, and its user's number is known."""
        world = await self._world()
        account = await world.register()
        granted = await world.login(account)
        asked = Deferred.fromCoroutine(self._ask(world, granted.access_token))
        self.assertTrue(asked.called)
        self.assertEqual((await asked).device_id, "PHONE")
        self.assertEqual(world.core.nids.known_user(granted.user_id), account.user_nid)

    async def test_an_account_that_changes_during_a_login(self) -> None:
        """A fresh token speaks of the account as it is when the session begins, not when it was looked up."""
        world = await self._world()
        before = await world.register()
        await world.parts.accounts.set_flag(before, "suspended", True)
        granted = await world.login(before)
        self.assertTrue((await self._ask(world, granted.access_token)).suspended)
        await world.parts.accounts.set_flag(before, "locked", True)
        await self._refused(world.login(before), UserLocked)

    async def test_a_password_that_changes_during_a_login(self) -> None:
        """Who has shown a password that is not the account's any more begins no session (security: L4)."""
        world = await self._world()
        before = await world.register()
        await world.parts.accounts.set_password(before, "another horse", keep=None, logout=True)
        await self._refused(world.login(before), Forbidden)
        await world.login(await world.parts.accounts.get(UserID(before.user_id)))

    async def test_an_account_or_a_device_that_ends_during_a_login(self) -> None:
        """A session that begins while its account or device goes is over with it (security: L4)."""
        world = await self._world()
        account = await world.register()
        persister, granted = world.core.persister, list[Granted]()
        commit = persister.commit

        async def late(write: Write) -> Any:
            self.patch(persister, "commit", commit)
            granted.append(await world.login(account))
            return await commit(write)

        for end in (
            lambda: world.parts.keepsakes.devices.remove(account.user_nid, ["PHONE"]),
            lambda: world.parts.accounts.deactivate(account, erase=False, now=NOW),
        ):
            await world.login(account)
            self.patch(persister, "commit", late)
            await end()
            await self._refused(self._ask(world, granted.pop().access_token))

    async def test_a_ticket_is_good_once_and_briefly(self) -> None:
        """It gives the token it was made for, once and within 30 s, and is none itself (security: W9)."""
        world = await self._world()
        token = (await world.login(await world.register())).access_token
        tickets = world.parts.tickets
        once, late = [await tickets.make(token, NOW) for _ in range(2)]
        await self._refused(self._ask(world, once))
        self.assertEqual(await tickets.take(once, NOW + 29_999), token)
        for ticket, now in ((once, NOW + 29_999), (late, NOW + 30_000), (token, NOW), ("", NOW)):
            await self._refused(tickets.take(ticket, now))

    async def test_a_session_that_ends_is_over_at_once(self) -> None:
        """After a logout the token is refused, and so is that of a device that logs in anew."""
        world = await self._world()
        account = await world.register()
        tokens = [(await world.login(account, name)).access_token for name in ("A", "B", "C")]
        for token in tokens:
            await self._ask(world, token)
        await world.parts.keepsakes.devices.remove(account.user_nid, ("A",))
        await self._refused(self._ask(world, tokens[0]))
        again = await world.login(account, "B")
        await self._refused(self._ask(world, tokens[1]))
        await self._ask(world, again.access_token)
        await self._ask(world, tokens[2])
        await world.parts.keepsakes.devices.remove_all(account.user_nid, keep="C")
        await self._refused(self._ask(world, again.access_token))
        await self._ask(world, tokens[2])

    async def test_logins_on_one_device_at_a_time(self) -> None:
        """Whichever session is begun last is the only one that stands."""
        world = await self._world()
        account = await world.register()
        logins = [Deferred.fromCoroutine(world.login(account)) for _ in range(6)]
        asked = []
        for granted in await gatherResults(logins):
            with contextlib.suppress(UnknownToken):
                asked.append(await self._ask(world, granted.access_token))
        self.assertEqual([one.device_id for one in asked], ["PHONE"])

    async def test_another_worker_hears_of_a_logout(self) -> None:
        """What one worker has cached ends by the feed when another logs out (security: L5)."""
        database = await open_database(self.url, REACTOR, pool_size=2)
        self.addCleanup(database.close)
        one, two = await self._world(), await make_world(database, writer="two")
        self.addCleanup(two.stop)
        account = await one.register()
        token = (await one.login(account)).access_token
        await self._ask(two, token)
        await one.parts.keepsakes.devices.remove_all(account.user_nid)
        await two.core.feed.catch_up()
        await self._refused(self._ask(two, token))

    async def test_a_worker_that_is_behind_asks_the_database(self) -> None:
        """A worker that cannot have heard of a logout does not trust its memory (security: L5)."""
        database = await open_database(self.url, REACTOR, pool_size=2)
        self.addCleanup(database.close)
        one, two = await self._world(), await make_world(database, writer="two", is_behind=lambda: True)
        self.addCleanup(two.stop)
        account = await one.register()
        token = (await one.login(account)).access_token
        await self._ask(two, token)
        await one.parts.keepsakes.devices.remove_all(account.user_nid)
        await self._refused(self._ask(two, token))

    async def test_refreshing_rotates(self) -> None:
        """New tokens work; the old access token works until the new one is used."""
        world = await self._world()
        account = await world.register()
        first = await world.login(account, refreshable=True)
        self.assertEqual(first.expires_in_ms, 5 * MINUTE)
        await self._ask(world, first.access_token)
        second = await world.parts.sessions.refresh(str(first.refresh_token), NOW)
        await self._ask(world, first.access_token)
        self.assertEqual((await self._ask(world, second.access_token)).device_id, "PHONE")
        replaced = await self._refused(self._ask(world, first.access_token))
        self.assertEqual(replaced.extra["soft_logout"], True)

    async def test_a_lost_answer_can_be_asked_for_again(self) -> None:
        """Until the new tokens are used, the old refresh token gives new ones."""
        world = await self._world()
        first = await world.login(await world.register(), refreshable=True)
        await world.parts.sessions.refresh(str(first.refresh_token), NOW)
        again = await world.parts.sessions.refresh(str(first.refresh_token), NOW)
        await self._ask(world, again.access_token)
        await world.parts.sessions.refresh(str(again.refresh_token), NOW)

    async def test_a_stolen_refresh_token_ends_the_family(self) -> None:
        """An old refresh token that comes again ends all tokens of the session (security: L13)."""
        world = await self._world()
        first = await world.login(await world.register(), refreshable=True)
        second = await world.parts.sessions.refresh(str(first.refresh_token), NOW)
        await self._ask(world, second.access_token)
        third = await world.parts.sessions.refresh(str(second.refresh_token), NOW)
        await self._ask(world, third.access_token)
        await self._refused(world.parts.sessions.refresh(str(first.refresh_token), NOW))
        for token in (first, second, third):
            await self._refused(self._ask(world, token.access_token))
            await self._refused(world.parts.sessions.refresh(str(token.refresh_token), NOW))

    async def test_tokens_expire(self) -> None:
        """Access and refresh tokens end by the configured times."""
        lifetimes = Sessions(access_token_lifetime=60, refresh_token_lifetime=3600)
        world = await self._world(auth=Auth(sessions=lifetimes))
        account = await world.register()
        plain = await world.login(account, "A")
        self.assertEqual(plain.expires_in_ms, MINUTE)
        await self._ask(world, plain.access_token)
        error = await self._refused(self._ask(world, plain.access_token, NOW + MINUTE))
        self.assertEqual(error.extra["soft_logout"], True)
        refreshable = await world.login(account, "B", refreshable=True)
        await self._refused(world.parts.sessions.refresh(str(refreshable.refresh_token), NOW + 60 * MINUTE))

    async def test_every_way_in_looks_at_the_account(self) -> None:
        """Neither login nor refresh nor a token lets a locked or ended account in (security: L4)."""
        world = await self._world()
        account = await world.register()
        granted = await world.login(account, refreshable=True)
        await self._ask(world, granted.access_token)
        await world.parts.accounts.set_flag(account, "locked", True)
        locked = await world.parts.accounts.get(account.user_id)
        self.assertTrue((await self._ask(world, granted.access_token)).locked)
        await self._refused(world.login(locked), UserLocked)
        await self._refused(world.parts.sessions.refresh(str(granted.refresh_token), NOW), UserLocked)
        await self._refused(
            world.parts.login.by_password("alice", PASSWORD, ip="1.2.3.4", now=NOW), UserLocked
        )
        await world.parts.accounts.deactivate(locked, erase=False, now=NOW)
        ended = await world.parts.accounts.get(account.user_id)
        await self._refused(self._ask(world, granted.access_token))
        await self._refused(world.login(ended), UserDeactivated)
        await self._refused(world.parts.sessions.refresh(str(granted.refresh_token), NOW))
        self.assertEqual(world.rooms.left, [account.user_id])

    async def test_flags_reach_tokens_in_use(self) -> None:
        """Suspending takes effect with the next request."""
        world = await self._world()
        account = await world.register()
        token = (await world.login(account)).access_token
        self.assertFalse((await self._ask(world, token)).suspended)
        await world.parts.accounts.set_flag(account, "suspended", True)
        self.assertTrue((await self._ask(world, token)).suspended)

    async def test_no_secret_is_kept_as_it_is(self) -> None:
        """Neither passwords nor tokens stand in the database (security: L8)."""
        world = await self._world()
        granted = await world.login(await world.register(), refreshable=True)

        def dump(tx: Transaction) -> str:
            tables = ("accounts", "sessions", "refresh_tokens", "devices", "uia_sessions")
            return repr([tx.all(f"SELECT * FROM {table}") for table in tables])

        everything = await self.database.read(dump)
        for secret in (PASSWORD, granted.access_token, str(granted.refresh_token)):
            self.assertNotIn(secret, everything)

    async def test_where_a_device_was_seen_is_written(self) -> None:
        """Seen in the list at once, and in the database after a flush."""
        world = await self._world()
        account = await world.register()
        await self._ask(world, (await world.login(account)).access_token, NOW + MINUTE)
        devices = world.parts.keepsakes.devices
        for _ in range(2):
            (row,) = await devices.of_user(account.user_nid)
            self.assertEqual((row.last_seen, row.last_ip), (NOW + MINUTE, "1.2.3.4"))
            await world.parts.upkeep.work()

    async def test_one_use_lets_one_in(self) -> None:
        """A token of one use, used by many at once, makes one account (security: L12)."""
        world = await self._world()
        await self.database.write(registration_tokens.add, "once", 1, None)
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(
                    world.parts.registration.register(Newcomer(f"user{number}", token="once"), NOW)
                ).addErrback(lambda failure: failure.trap(MatrixError) and None)
                for number in range(20)
            ]
        )
        self.assertEqual(len([account for account in answers if account is not None]), 1)

    async def test_a_name_is_given_once(self) -> None:
        """Many who want one name at once: one gets it, and after its end nobody does (security: L14)."""
        world = await self._world()
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(world.parts.registration.register(Newcomer("same"), NOW)).addErrback(
                    lambda failure: failure.trap(MatrixError) and None
                )
                for _ in range(10)
            ]
        )
        (account,) = [account for account in answers if account is not None]
        await world.parts.accounts.deactivate(account, erase=True, now=NOW)
        await self._refused(world.parts.registration.check_available("same"), MatrixError)


class SqliteSessionsTests(SessionsContract, SqliteCase):
    """On SQLite."""


class PostgresSessionsTests(SessionsContract, PostgresCase):
    """On PostgreSQL."""
