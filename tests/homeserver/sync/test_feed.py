"""Tests of the session feed over a real database."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.sync.filters import compile_filter
from homeserver.sync.session import Options
from homeserver.sync.suppliers import AccountDatum, Receipt
from protocol.errors import UnknownPos
from protocol.identifiers import EventID, UserID
from storage.engines import open_database
from storage.feed import Kind, NewEntry
from tests.homeserver.sync.world import NOW, World, event_ids
from tests.storage.helpers import REACTOR

ALICE, BOB, CAROL = "@alice:here.example", "@bob:here.example", "@carol:else.example"


class FeedCase(TestCase):
    """A world on SQLite."""

    async def setUp(self) -> None:
        """Open a database and a session feed."""
        self.database = await open_database(f"sqlite:///{self.mktemp()}", REACTOR)
        self.addCleanup(self.database.close)
        self.world = await World.open(self.database)
        self.feed = self.world.session_feed()

    async def sync(
        self, user: str, since: Any = None, device: str = "DEV", **options: Any
    ) -> tuple[Any, Any]:
        """Sync a user; give the answer and the token."""
        if "filter" in options:
            options["filter"] = compile_filter(json.dumps(options["filter"]))
        session = await self.world.session(user, device)
        delta = await self.feed.delta(session, since, Options(**options), now=self.world.now)
        answer = json.loads(delta.to_json())
        self.assertEqual(answer["next_batch"], str(delta.next_batch))
        return answer, delta.next_batch


def timeline(room: Any) -> list[str]:
    """Give the event IDs of a room's timeline."""
    return [event["event_id"] for event in room["timeline"]["events"]]


class JoinedTests(FeedCase):
    """Rooms the user is in."""

    async def test_a_first_sync_has_the_newest_events_and_the_state_before_them(self) -> None:
        """A first sync gives the newest events, and the state at the start of them."""
        room = await self.world.room(ALICE)
        said = [await room.say(ALICE, str(n)) for n in range(12)]
        answer, _ = await self.sync(ALICE)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), event_ids(said[2:]))
        self.assertTrue(joined["timeline"]["limited"])
        self.assertEqual(
            sorted(event["type"] for event in joined["state"]["events"]),
            ["m.room.create", "m.room.history_visibility", "m.room.member", "m.room.power_levels"],
        )
        self.assertEqual(joined["summary"]["m.joined_member_count"], 1)

    async def test_a_new_room_fits_its_timeline(self) -> None:
        """A room whose state fits the timeline has an empty state, or all of it after."""
        room = await self.world.room(ALICE)
        answer, _ = await self.sync(ALICE)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), event_ids(room.sent))
        self.assertEqual(joined["state"]["events"], [])
        self.assertFalse(joined["timeline"]["limited"])
        answer, _ = await self.sync(ALICE, state_after=True)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertNotIn("state", joined)
        self.assertEqual(len(joined["state_after"]["events"]), 4)

    async def test_an_incremental_sync_has_what_came_since(self) -> None:
        """What came since the token is given once, and then no more."""
        room = await self.world.room(ALICE)
        other = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        said = await room.say(ALICE, "hello")
        answer, token = await self.sync(ALICE, token)
        self.assertEqual(list(answer["rooms"]["join"]), [room.room_id])
        self.assertEqual(timeline(answer["rooms"]["join"][room.room_id]), [said.event.event_id])
        answer, _ = await self.sync(ALICE, token)
        self.assertNotIn("rooms", answer)
        self.assertTrue(other)

    async def test_a_gap_is_told_with_the_state_that_changed_in_it(self) -> None:
        """A limited timeline comes with the state changed in the gap, and with relations (MSC4222 too)."""
        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        name = await room.send(ALICE, "m.room.name", {"name": "one"}, "")
        for n in range(12):
            await room.say(ALICE, str(n))
        name2 = await room.send(ALICE, "m.room.name", {"name": "two"}, "")
        answer, _ = await self.sync(ALICE, token)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertTrue(joined["timeline"]["limited"])
        self.assertEqual([e["event_id"] for e in joined["state"]["events"]], [name.event.event_id])
        last = joined["timeline"]["events"][-1]
        self.assertEqual(last["unsigned"]["replaces_state"], name.event.event_id)
        self.assertEqual(last["unsigned"]["prev_content"], {"name": "one"})
        answer, _ = await self.sync(ALICE, token, state_after=True)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual([e["event_id"] for e in joined["state_after"]["events"]], [name2.event.event_id])

    async def test_state_the_filter_keeps_from_the_timeline_is_given_beside_it(self) -> None:
        """A state event that the timeline's filter drops is given as state."""
        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        name = await room.send(ALICE, "m.room.name", {"name": "one"}, "")
        said = await room.say(ALICE, "x")
        only = {"room": {"timeline": {"types": ["m.room.message"]}}}
        answer, _ = await self.sync(ALICE, token, filter=only)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), [said.event.event_id])
        self.assertEqual([e["event_id"] for e in joined["state"]["events"]], [name.event.event_id])

    async def test_only_the_sending_device_sees_its_transaction_id(self) -> None:
        """A transaction ID reaches the device that sent it and nobody else (security: C6)."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        tokens = {}
        for user, device in ((ALICE, "A"), (ALICE, "B"), (BOB, "C")):
            _, tokens[user, device] = await self.sync(user, device=device)
        sender = await self.world.session(ALICE, "A")
        await room.send(ALICE, "m.room.message", {"body": "x"}, txn=(sender, "txn\u00e9"))
        seen = {}
        for (user, device), token in tokens.items():
            answer, _ = await self.sync(user, token, device)
            event = answer["rooms"]["join"][room.room_id]["timeline"]["events"][0]
            seen[user, device] = event["unsigned"].get("transaction_id")
        self.assertEqual(seen, {(ALICE, "A"): "txn\u00e9", (ALICE, "B"): None, (BOB, "C"): None})

    async def test_shared_bytes_hold_nothing_of_one_recipient(self) -> None:
        """What two recipients are told alike has nothing of either in it (security: C6)."""
        room = await self.world.room(ALICE)
        for user in (BOB, CAROL):
            await room.member(user, user, "join")
        tokens = {user: (await self.sync(user))[1] for user in (BOB, CAROL)}
        await room.say(ALICE, "x")
        bodies = []
        for user, token in tokens.items():
            delta = await self.feed.delta(await self.world.session(user), token, now=self.world.now)
            bodies.append(delta.rooms[0].body)
        self.assertEqual(bodies[0], bodies[1])
        event = json.loads(bodies[0])["timeline"]["events"][0]
        self.assertEqual(set(event["unsigned"]), {"age", "membership"})
        self.assertEqual(event["unsigned"]["membership"], "join")

    async def test_a_redaction_changes_what_was_rendered(self) -> None:
        """After a redaction nobody is given the content again, and the redaction is named."""
        room = await self.world.room(ALICE)
        said = await room.say(ALICE, "secret")
        await self.sync(ALICE)
        redaction = await room.redact(ALICE, said)
        answer, _ = await self.sync(ALICE)
        events = answer["rooms"]["join"][room.room_id]["timeline"]["events"]
        event = next(e for e in events if e["event_id"] == said.event.event_id)
        self.assertEqual(event["content"], {})
        self.assertEqual(event["unsigned"]["redacted_because"]["event_id"], redaction.event.event_id)
        last = events[-1]
        self.assertEqual(last["redacts"], said.event.event_id)
        self.assertEqual(last["content"]["redacts"], said.event.event_id)

    async def test_full_state_gives_all_state_and_only_new_events(self) -> None:
        """With full_state all rooms come with all their state, and the timeline only what is new."""
        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        answer, _ = await self.sync(ALICE, token, full_state=True)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(len(joined["state"]["events"]), 4)
        self.assertEqual(timeline(joined), [])

    async def test_ignored_users_say_nothing_but_their_state_holds(self) -> None:
        """Messages of ignored users are left out, their state is not."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        _, token = await self.sync(ALICE)
        alice = await self.world.session(ALICE)
        self.world.supply.ignored_by[alice.user_nid] = frozenset({UserID(BOB)})
        await room.say(BOB, "x")
        topic = await room.send(BOB, "m.room.topic", {"topic": "t"}, "")
        answer, _ = await self.sync(ALICE, token)
        self.assertEqual(timeline(answer["rooms"]["join"][room.room_id]), [topic.event.event_id])

    async def test_a_resolution_is_told_as_state(self) -> None:
        """State that changed without an event, or against one, is told as state."""
        room = await self.world.room(ALICE)
        one = await room.send(ALICE, "m.room.name", {"name": "one"}, "")
        await room.send(ALICE, "m.room.name", {"name": "two"}, "")
        _, token = await self.sync(ALICE)
        fork = await room.send(
            ALICE, "m.room.topic", {"topic": "t"}, "", fork=True,
            resolved={("m.room.name", ""): one.nid},
        )  # fmt: skip
        answer, _ = await self.sync(ALICE, token)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), [fork.event.event_id])
        self.assertEqual([e["event_id"] for e in joined["state"]["events"]], [one.event.event_id])


class LazyTests(FeedCase):
    """Lazily loaded members."""

    LAZY = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 2}}}

    async def test_members_come_with_their_first_words_and_once(self) -> None:
        """A member event comes with the sender's first event, and not again once the client has it."""
        room = await self.world.room(ALICE)
        for user in (BOB, CAROL):
            await room.member(user, user, "join")
        for n in range(3):
            await room.say(ALICE, str(n))
        answer, _ = await self.sync(ALICE, filter=self.LAZY)
        state = answer["rooms"]["join"][room.room_id]["state"]["events"]
        self.assertEqual({e["state_key"] for e in state if e["type"] == "m.room.member"}, {ALICE, BOB, CAROL})
        for n in range(30):
            await room.member(f"@u{n}:here.example", f"@u{n}:here.example", "join")
        await room.say(ALICE, "a")
        await room.say(ALICE, "b")
        answer, token = await self.sync(ALICE, filter=self.LAZY)
        state = answer["rooms"]["join"][room.room_id]["state"]["events"]
        members = {e["state_key"] for e in state if e["type"] == "m.room.member"}
        self.assertIn(ALICE, members)
        self.assertNotIn("@u20:here.example", members)
        await room.say("@u20:here.example", "c")
        answer, later = await self.sync(ALICE, token, filter=self.LAZY)
        state = answer["rooms"]["join"][room.room_id]["state"]["events"]
        self.assertEqual([e["state_key"] for e in state], ["@u20:here.example"])
        again, _ = await self.sync(ALICE, token, filter=self.LAZY)
        self.assertEqual(again, answer, "a lost answer is repeated whole")
        await room.say("@u20:here.example", "d")
        answer, _ = await self.sync(ALICE, later, filter=self.LAZY)
        self.assertEqual(answer["rooms"]["join"][room.room_id]["state"]["events"], [])

    async def test_members_of_a_gap_are_all_given(self) -> None:
        """Joins and leaves in the gap before a limited timeline are all given."""
        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE, filter=self.LAZY)
        await room.member(BOB, BOB, "join")
        for n in range(3):
            await room.say(ALICE, str(n))
        answer, _ = await self.sync(ALICE, token, filter=self.LAZY)
        state = answer["rooms"]["join"][room.room_id]["state"]["events"]
        self.assertIn(BOB, [e["state_key"] for e in state])


class MembershipTests(FeedCase):
    """Rooms joined, left, invited to."""

    async def test_a_room_joined_since_comes_whole(self) -> None:
        """A room joined since the token comes with all its state."""
        room = await self.world.room(ALICE)
        await room.say(ALICE, "before")
        _, token = await self.sync(BOB)
        await room.member(BOB, BOB, "join")
        answer, token = await self.sync(BOB, token)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), event_ids(room.sent))
        _, _ = await self.sync(BOB, token)

    async def test_who_joins_later_sees_what_the_visibility_allows(self) -> None:
        """With visibility `joined`, a newcomer does not see what was said before the join (security: C2)."""
        room = await self.world.room(ALICE, visibility="joined")
        await room.say(ALICE, "before")
        join = await room.member(BOB, BOB, "join")
        answer, _ = await self.sync(BOB)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), event_ids([*room.sent[:4], join]))

    async def test_a_kicked_user_sees_nothing_after_the_kick(self) -> None:
        """After a kick nothing later is seen, on the ring or from the database (security: C1)."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        _, token = await self.sync(BOB)
        said = await room.say(ALICE, "seen")
        kick = await room.member(ALICE, BOB, "leave")
        await room.send(ALICE, "m.room.name", {"name": "secret"}, "")
        await room.member(CAROL, CAROL, "join")
        for ring in (True, False):
            self.feed.use_ring = ring
            answer, later = await self.sync(BOB, token)
            left = answer["rooms"]["leave"][room.room_id]
            self.assertEqual(timeline(left), [said.event.event_id, kick.event.event_id])
            self.assertEqual(left["state"]["events"], [])
            answer, _ = await self.sync(BOB, token, state_after=True)
            after = answer["rooms"]["leave"][room.room_id]["state_after"]["events"]
            self.assertEqual([e["event_id"] for e in after], [kick.event.event_id])
            answer, _ = await self.sync(BOB, later)
            self.assertNotIn("rooms", answer)
            answer, _ = await self.sync(BOB, filter={"room": {"include_leave": True}})
            left = answer["rooms"]["leave"][room.room_id]
            self.assertNotIn("secret", json.dumps(left))
            self.assertNotIn(CAROL, json.dumps(left))
            answer, _ = await self.sync(BOB)
            self.assertNotIn("rooms", answer)

    async def test_joined_and_left_while_away(self) -> None:
        """A room joined and left since the token is shown as left, with what lay between."""
        room = await self.world.room(ALICE, visibility="joined")
        _, token = await self.sync(BOB)
        join = await room.member(BOB, BOB, "join")
        leave = await room.member(BOB, BOB, "leave")
        await room.say(ALICE, "later")
        answer, _ = await self.sync(BOB, token)
        self.assertEqual(
            timeline(answer["rooms"]["leave"][room.room_id]), event_ids([*room.sent[:4], join, leave])
        )

    async def test_an_invite_has_stripped_state_of_its_moment(self) -> None:
        """An invite shows stripped state and the invite; a refused one the own leave alone."""
        room = await self.world.room(ALICE)
        await room.send(ALICE, "m.room.name", {"name": "Then"}, "")
        _, token = await self.sync(BOB)
        await room.member(ALICE, BOB, "invite")
        await room.send(ALICE, "m.room.name", {"name": "Later"}, "")
        answer, token = await self.sync(BOB, token)
        events = answer["rooms"]["invite"][room.room_id]["invite_state"]["events"]
        self.assertEqual({e["type"] for e in events}, {"m.room.create", "m.room.name", "m.room.member"})
        self.assertNotIn("Later", json.dumps(events))
        self.assertEqual(set(events[0]), {"content", "sender", "state_key", "type"})
        leave = await room.member(BOB, BOB, "leave")
        answer, _ = await self.sync(BOB, token)
        self.assertEqual(timeline(answer["rooms"]["leave"][room.room_id]), [leave.event.event_id])

    async def test_invites_by_ignored_users_are_hidden(self) -> None:
        """An invite by an ignored user is not shown."""
        room = await self.world.room(ALICE)
        bob = await self.world.session(BOB)
        self.world.supply.ignored_by[bob.user_nid] = frozenset({UserID(ALICE)})
        await room.member(ALICE, BOB, "invite")
        answer, _ = await self.sync(BOB)
        self.assertNotIn("rooms", answer)

    async def test_nonsense_in_stored_stripped_state_is_left_out(self) -> None:
        """Whatever shape stored stripped state has, sync answers (security: F11)."""
        room = await self.world.room(ALICE)
        invite = await room.member(ALICE, BOB, "invite")
        await self.database.write(
            lambda tx: tx.execute("UPDATE events SET root_before = NULL WHERE event_nid = ?", (invite.nid,))
        )
        bob = await self.world.session(BOB)
        good = {"type": "m.room.name", "state_key": "", "sender": ALICE, "content": {"name": "x"}}
        shapes: list[bytes] = [
            b"", b"5", b"null", b"{}", b"[5]", b"[null]", b'["x"]', b"[[]]", b"[{}]", b"not json", b"\xff",
            b'[{"type":5}]', b'[{"type":"x","state_key":null,"sender":"@a:b","content":{}}]',
            b'[{"type":"x","state_key":"","sender":{},"content":{}}]',
            b'[{"type":"x","state_key":"","sender":"@a:b","content":[]}]',
            b'[{"type":"\\ud800","state_key":"","sender":"@a:b","content":{}}]',
            b"[" * 5000 + b"]" * 5000, b'[{"content":{"a":1e999}}]', b'{"type":"x"}', b"true",
        ]  # fmt: skip
        for shape in shapes:
            raw = shape
            await self.database.write(
                lambda tx, raw=raw: tx.execute(
                    "INSERT INTO stripped_states (room_nid, user_nid, state) VALUES (?, ?, ?)"
                    " ON CONFLICT (room_nid, user_nid) DO UPDATE SET state = excluded.state",
                    (room.nid, bob.user_nid, raw),
                )
            )
            self.feed = self.world.session_feed()
            answer, _ = await self.sync(BOB)
            events = answer["rooms"]["invite"][room.room_id]["invite_state"]["events"]
            self.assertEqual([e["type"] for e in events], ["m.room.member"], shape)
        await self.database.write(
            lambda tx: tx.execute("UPDATE stripped_states SET state = ?", (json.dumps([good, 5]).encode(),))
        )
        answer, _ = await self.sync(BOB)
        events = answer["rooms"]["invite"][room.room_id]["invite_state"]["events"]
        self.assertEqual(events[0], good)

    async def test_rejected_and_soft_failed_events_reach_nobody(self) -> None:
        """Only accepted events are in the feed or come by any read (security: F20)."""
        from storage.events import Status

        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        bad = [
            await room.send(ALICE, "m.room.message", {"body": "bad"}, status=status)
            for status in (Status.REJECTED, Status.SOFT_FAILED)
        ]
        good = await room.say(ALICE, "good")
        answer, _ = await self.sync(ALICE, token)
        self.assertEqual(timeline(answer["rooms"]["join"][room.room_id]), [good.event.event_id])
        self.assertEqual(len(bad), 2)


class BesideTests(FeedCase):
    """What is beside the rooms' events."""

    async def test_private_receipts_are_the_owners_alone(self) -> None:
        """Receipts are told to all, private ones to their owner alone."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        tokens = {user: (await self.sync(user))[1] for user in (ALICE, BOB)}
        bob = await self.world.session(BOB)
        target = room.sent[-1].event.event_id
        self.world.supply.receipts_by_room[room.nid] = [
            Receipt(1, target, "m.read", UserID(BOB), None, NOW),
            Receipt(2, target, "m.read.private", UserID(BOB), "main", NOW),
        ]
        await self.world.commit([NewEntry(Kind.RECEIPT, 0, room.nid, bob.user_nid, ref) for ref in (1, 2)])
        seen = {}
        for user, token in tokens.items():
            answer, _ = await self.sync(user, token)
            content = answer["rooms"]["join"][room.room_id]["ephemeral"]["events"][0]["content"][target]
            seen[user] = sorted(content)
        self.assertEqual(seen, {ALICE: ["m.read"], BOB: ["m.read", "m.read.private"]})

    async def test_typing_is_told_when_it_changes(self) -> None:
        """Typing is told when it changed; a token of another ring gets what holds now."""
        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        supply = self.world.supply
        supply.position, supply.typing_rooms[room.nid] = 3, (3, (UserID(BOB),))
        answer, token = await self.sync(ALICE, token)
        event = answer["rooms"]["join"][room.room_id]["ephemeral"]["events"][0]
        self.assertEqual(event, {"type": "m.typing", "content": {"user_ids": [BOB]}})
        answer, token = await self.sync(ALICE, token)
        self.assertNotIn("rooms", answer)
        supply.ring, supply.position = "r2", 0
        answer, _ = await self.sync(ALICE, token)
        self.assertIn("rooms", answer)

    async def test_to_device_messages_come_in_hundreds_and_go_when_acknowledged(self) -> None:
        """At most 100 messages an answer, in order; they go when the token that has them comes back."""
        alice = await self.world.session(ALICE)
        key = (alice.user_nid, alice.device_id)
        self.world.supply.messages[key] = [(n, b'{"n":%d}' % n) for n in range(1, 151)]
        answer, token = await self.sync(ALICE)
        self.assertEqual([e["n"] for e in answer["to_device"]["events"]], list(range(1, 101)))
        repeated, _ = await self.sync(ALICE)
        self.assertEqual(repeated["to_device"], answer["to_device"])
        answer, token = await self.sync(ALICE, token)
        self.assertEqual([e["n"] for e in answer["to_device"]["events"]], list(range(101, 151)))
        self.assertEqual(len(self.world.supply.messages[key]), 50)
        answer, _ = await self.sync(ALICE, token)
        self.assertNotIn("to_device", answer)
        self.assertEqual(self.world.supply.messages[key], [])

    async def test_account_data_is_told_when_it_changes(self) -> None:
        """Account data comes whole at first, then what changed, by room and global."""
        room = await self.world.room(ALICE)
        alice = await self.world.session(ALICE)
        self.world.supply.data[alice.user_nid] = [
            (1, AccountDatum(None, "m.direct", b"{}")),
            (2, AccountDatum(room.nid, "m.tag", b'{"tags":{}}')),
        ]
        answer, token = await self.sync(ALICE)
        self.assertEqual([e["type"] for e in answer["account_data"]["events"]], ["m.direct"])
        tags = answer["rooms"]["join"][room.room_id]["account_data"]["events"]
        self.assertEqual([e["type"] for e in tags], ["m.tag"])
        await self.world.commit([NewEntry(Kind.ACCOUNT_DATA, 0, room.nid, alice.user_nid, 2)])
        answer, _ = await self.sync(ALICE, token)
        self.assertNotIn("account_data", answer)
        self.assertIn(room.room_id, answer["rooms"]["join"])

    async def test_device_lists_name_who_shares_a_room(self) -> None:
        """Changed are those who share a room, left those who share none any more."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        _, token = await self.sync(ALICE)
        bob, carol = await self.world.session(BOB), await self.world.session(CAROL)
        await self.world.commit(
            [NewEntry(Kind.DEVICE_LIST, user_nid=nid) for nid in (bob.user_nid, carol.user_nid)]
        )
        answer, token = await self.sync(ALICE, token)
        self.assertEqual(answer["device_lists"], {"changed": [BOB], "left": []})
        await room.member(CAROL, CAROL, "join")
        await room.member(BOB, BOB, "leave")
        answer, token = await self.sync(ALICE, token)
        self.assertEqual(answer["device_lists"], {"changed": [CAROL], "left": [BOB]})
        await room.member(ALICE, ALICE, "leave")
        answer, _ = await self.sync(ALICE, token)
        self.assertEqual(answer["device_lists"], {"changed": [], "left": [CAROL]})

    async def test_tokens_of_another_epoch_or_the_future_are_refused(self) -> None:
        """A token of another epoch, or beyond the feed, is refused (security: D9)."""
        _, token = await self.sync(ALICE)
        for wrong in (token.moved(token.pos + 1), type(token)(2, 0, 0, token.place)):
            with self.assertRaises(UnknownPos):
                await self.sync(ALICE, wrong)

    async def test_other_shapes_of_events(self) -> None:
        """`event_fields` keeps the fields named; `event_format: federation` gives the PDU."""
        room = await self.world.room(ALICE)
        said = await room.say(ALICE, "x")
        fields = {"event_fields": ["content.body"], "room": {"timeline": {"limit": 1}}}
        answer, _ = await self.sync(ALICE, filter=fields)
        event = answer["rooms"]["join"][room.room_id]["timeline"]["events"][0]
        self.assertEqual(
            event,
            {"event_id": said.event.event_id, "type": "m.room.message", "content": {"body": "x"}},
        )
        answer, _ = await self.sync(ALICE, filter={"event_format": "federation"})
        event = answer["rooms"]["join"][room.room_id]["timeline"]["events"][-1]
        self.assertIn("signatures", event)
        self.assertEqual(EventID(said.event.event_id)[0], "$")
