"""Tests of the session feed: rooms joined, left and invited to."""

from __future__ import annotations

import json

from homeserver.sync.session import STATE_AFTER
from protocol.identifiers import UserID
from storage.events import Status
from storage.feed import Flag, Kind, NewEntry
from tests.homeserver.sync.feed_case import ALICE, BOB, CAROL, FeedCase, timeline
from tests.homeserver.sync.world import event_ids


class MembershipTests(FeedCase):
    """Rooms joined, left, invited to."""

    async def test_a_knock_shows_the_own_membership_once(self) -> None:
        """Who knocks, having been there before, is shown the knock and no membership before it."""
        room = await self.world.room(BOB)
        await room.member(ALICE, ALICE, "join")
        await room.member(ALICE, ALICE, "leave")
        _, token = await self.sync(ALICE)
        await room.member(ALICE, ALICE, "knock", reason="please")
        for since in (token, None):
            answer, _ = await self.sync(ALICE, since)
            events = answer["rooms"]["knock"][room.room_id]["knock_state"]["events"]
            members = [event["content"] for event in events if event["type"] == "m.room.member"]
            self.assertEqual(members, [{"membership": "knock", "reason": "please"}])
            self.assertIn("m.room.create", [event["type"] for event in events])

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
            answer, _ = await self.sync(BOB, token, state_name=STATE_AFTER)
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
        left = answer["rooms"]["leave"][room.room_id]
        self.assertEqual(timeline(left), [leave.event.event_id])
        self.assertEqual(left["timeline"]["events"][0]["unsigned"]["membership"], "leave")
        answer, _ = await self.sync(BOB, token, state_name=STATE_AFTER)
        after = answer["rooms"]["leave"][room.room_id]["state_after"]["events"]
        self.assertEqual([event["event_id"] for event in after], [leave.event.event_id])

    async def test_the_end_of_an_invite_or_knock_from_elsewhere_is_shown(self) -> None:
        """Who was invited to, or knocks at, a room that is not held here is shown the event that ended it."""
        for began in ("invite", "knock"):
            room = await self.world.room(ALICE)
            bob = await self.world.session(BOB)
            token = None
            for membership, sender in ((began, ALICE), ("leave", ALICE)):
                last = await room.send(
                    sender, "m.room.member", {"membership": membership}, BOB, status=Status.OUTLIER
                )
                entry = NewEntry(
                    Kind.INVITE, int(Flag.MEMBERSHIP), room.nid, bob.user_nid, last.nid, payload=last
                )
                await self.world.commit([entry])
                if membership == began:
                    _, token = await self.sync(BOB)
            for ring in (True, False):
                self.feed.use_ring = ring
                answer, _ = await self.sync(BOB, token)
                left = answer["rooms"]["leave"][room.room_id]
                self.assertEqual((timeline(left), left["state"]["events"]), ([last.event.event_id], []))
                answer, _ = await self.sync(BOB, token, state_name=STATE_AFTER)
                after = answer["rooms"]["leave"][room.room_id]["state_after"]["events"]
                self.assertEqual([event["event_id"] for event in after], [last.event.event_id])

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
