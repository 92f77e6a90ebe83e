-- Unread counts: only what differs from the rule. And the indexes of what clients read.

-- A verdict on one event for one user, where it differs from what the user's rules say of the event's
-- class: mentions, keywords, senders, custom conditions. Never a row for each user and event.
-- Janitor: rows at or before the user's marker are dropped when the counts are next taken.
CREATE TABLE unread_verdicts (
    user_nid BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    depth BIGINT NOT NULL,        -- place of the event in history, with event_nid
    thread TEXT,                  -- event ID of the thread's root; NULL: main
    notify SMALLINT NOT NULL,     -- 1: counts as a notification
    highlight SMALLINT NOT NULL,  -- 1: counts as a highlight
    PRIMARY KEY (user_nid, room_nid, event_nid)
);

-- Events on which some default push rule decides, in the order of history.
CREATE INDEX events_unread ON events (room_nid, depth, event_nid, class, sender_nid, thread)
    WHERE status = 0 AND class > 0;
CREATE INDEX events_threads ON events (room_nid, thread, depth, event_nid) WHERE thread IS NOT NULL;
CREATE INDEX events_time ON events (room_nid, ts) WHERE status = 0;
CREATE INDEX memberships_order ON memberships (room_nid, membership, event_nid);
