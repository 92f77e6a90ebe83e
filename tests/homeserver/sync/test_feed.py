"""Tests of the session feed: rooms the user is in, and lazily loaded members."""

from __future__ import annotations

import json
from typing import Any

from homeserver.sync import room_parts
from homeserver.sync.session import STATE_AFTER
from protocol.identifiers import UserID
from storage.trie_nodes import NodeCache
from tests.homeserver.sync.feed_case import ALICE, BOB, CAROL, FeedCase, timeline
from tests.homeserver.sync.world import event_ids
from tests.storage.helpers import CountingDatabase


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

    async def test_a_first_sync_takes_few_hops_whatever_its_rooms(self) -> None:
        """All that many rooms have to tell, redacted events and former names too, is read at once."""
        for n in range(5):
            room = await self.world.room(ALICE)
            root = await room.say(ALICE, str(n))
            relation = {"rel_type": "m.thread", "event_id": root.event.event_id}
            for name in ("once", "again"):
                await room.member(BOB, BOB, "join", displayname=name)
                await room.say(BOB, name, **{"m.relates_to": relation})
            await room.redact(ALICE, await room.say(ALICE, "oh"))
        self.world.database = database = CountingDatabase(self.database)
        self.world.nodes = NodeCache(1_000_000)
        feed = self.world.session_feed()
        session = await self.world.session(ALICE)
        before = database.reads
        cold = (await feed.delta(session, None, now=self.world.now)).to_json()
        hops = {"rooms": 1, "feed": 1, "events and state": 1, "summaries": 1}
        self.assertEqual(database.reads - before, sum(hops.values()))
        self.assertEqual((await feed.delta(session, None, now=self.world.now)).to_json(), cold)
        for part in (b'"redacted_because":', b'"replaces_state":', b'"m.thread":'):
            self.assertEqual(cold.count(part), 5)
        self.patch(room_parts, "ROOMS_A_HOP", 2)
        self.world.nodes, before = NodeCache(1_000_000), database.reads
        apart = (await self.world.session_feed().delta(session, None, now=self.world.now)).to_json()
        self.assertEqual((apart, database.reads - before), (cold, sum(hops.values()) + 2))

    async def test_a_new_room_fits_its_timeline(self) -> None:
        """A room whose state fits the timeline has an empty state, or all of it after."""
        room = await self.world.room(ALICE)
        answer, _ = await self.sync(ALICE)
        joined = answer["rooms"]["join"][room.room_id]
        self.assertEqual(timeline(joined), event_ids(room.sent))
        self.assertEqual(joined["state"]["events"], [])
        self.assertFalse(joined["timeline"]["limited"])
        answer, _ = await self.sync(ALICE, state_name=STATE_AFTER)
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
        answer, _ = await self.sync(ALICE, token, state_name=STATE_AFTER)
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

    async def test_members_come_again_with_a_whole_room(self) -> None:
        """Who comes back into a room, or asks for all state, is given the members of the timeline anew."""
        room = await self.world.room(BOB)
        await room.member(ALICE, ALICE, "join")
        await room.say(BOB, "before")
        _, token = await self.sync(ALICE, filter=self.LAZY)
        await room.member(ALICE, ALICE, "leave")
        _, token = await self.sync(ALICE, token, filter=self.LAZY)
        await room.member(ALICE, ALICE, "join")
        for n in range(2):
            await room.say(BOB, str(n))
        answer, token = await self.sync(ALICE, token, filter=self.LAZY)
        state = answer["rooms"]["join"][room.room_id]["state"]["events"]
        self.assertEqual({e["state_key"] for e in state if e["type"] == "m.room.member"}, {ALICE, BOB})
        answer, _ = await self.sync(ALICE, token, filter=self.LAZY, full_state=True)
        state = answer["rooms"]["join"][room.room_id]["state"]["events"]
        self.assertEqual({e["state_key"] for e in state if e["type"] == "m.room.member"}, {ALICE, BOB})

    async def test_new_heroes_come_with_their_members(self) -> None:
        """Who becomes a hero since another left is given as a member too, to each reader, and once."""
        room = await self.world.room(ALICE)
        users = [f"@u{n}:here.example" for n in range(8)]
        for user in users:
            await room.member(user, user, "join")
        for n in range(3):
            await room.say(ALICE, str(n))
        readers, known = (ALICE, users[2], users[7]), {}
        for reader in readers:
            answer, token = await self.sync(reader, filter=self.LAZY)
            heroes, members = self.heroes(answer, room.room_id)
            self.assertTrue(heroes <= members | {ALICE}, (heroes, members))
            known[reader] = heroes, token
        await room.member(users[0], users[0], "leave")
        for reader in readers:
            before, token = known[reader]
            answer, token = await self.sync(reader, token, filter=self.LAZY)
            heroes, members = self.heroes(answer, room.room_id)
            self.assertEqual(heroes - before, {users[4] if reader == users[7] else users[5]})
            self.assertTrue(heroes - before <= members, (heroes, members))
            known[reader] = heroes, token
        await room.member(users[6], users[6], "join", displayname="x")
        for reader in readers:
            answer, _ = await self.sync(reader, known[reader][1], filter=self.LAZY)
            self.assertEqual(self.heroes(answer, room.room_id), (known[reader][0], set()))

    @staticmethod
    def heroes(answer: Any, room_id: str) -> tuple[set[str], set[str]]:
        """Give the heroes of a room, and the users whose member events are in its state."""
        room = answer["rooms"]["join"][room_id]
        members = {e["state_key"] for e in room["state"]["events"] if e["type"] == "m.room.member"}
        return set(room["summary"]["m.heroes"]), members

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
