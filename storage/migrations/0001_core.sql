-- The core: interned names, rooms, events, state tries, the feed.
-- BYTES stands for BLOB on SQLite and BYTEA on PostgreSQL.

-- Numbers handed out in blocks, so that a worker seldom asks: 'event', 'user', 'room', ….
-- Bound: one row per kind of number.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    next BIGINT NOT NULL          -- the first number not yet handed out
);

-- Users of any server, interned. Bound: users ever seen; never deleted.
CREATE TABLE users (
    user_nid BIGINT PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE
);

-- Rooms known here, interned. Bound: rooms ever seen.
CREATE TABLE rooms (
    room_nid BIGINT PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL
);

-- The head of each room this server takes part in; its row lock is the lock of the room.
CREATE TABLE room_heads (
    room_nid BIGINT PRIMARY KEY,
    head_seq BIGINT NOT NULL,     -- counts the commits to the room; guards the placement (compare and set)
    extremities BYTES NOT NULL,   -- forward extremities: event nids, 8 bytes each, big-endian, ascending
    root BYTES NOT NULL,          -- the resolved state: a root of the state trie
    depth BIGINT NOT NULL         -- the greatest depth among the extremities, as placed
);

-- One row an event. Partitioned by room on PostgreSQL.
CREATE TABLE events (
    room_nid BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    status SMALLINT NOT NULL,     -- 0 accepted, 1 soft-failed, 2 rejected, 3 outlier
    partial SMALLINT NOT NULL DEFAULT 0,   -- 1: placed on partial state, to be checked again
    depth BIGINT NOT NULL,        -- place in history: the claimed depth, clamped; for display alone
    type TEXT NOT NULL,
    state_key TEXT,               -- NULL: not a state event
    sender_nid BIGINT NOT NULL,
    ts BIGINT NOT NULL,           -- origin_server_ts, milliseconds
    root_before BYTES,            -- state before the event on its branch; NULL for outliers
    chain BIGINT,                 -- auth clock: the chain this state event lies on
    number BIGINT,                -- … and its number there
    clock BYTES,                  -- … and its auth chain as packed {chain: highest number}
    class SMALLINT NOT NULL DEFAULT 0,     -- which default push rule decides on it (protocol.unread)
    thread TEXT,                  -- event ID of the thread root it belongs to; NULL: main
    rel_type TEXT,                -- m.relates_to
    relates_to TEXT,
    redacted_by BIGINT,           -- nid of the redaction that applies to it
    pdu BYTES NOT NULL,           -- canonical JSON as it travels, prev and auth references in it
    PRIMARY KEY (room_nid, event_nid),
    UNIQUE (room_nid, event_id)
)
--@postgres PARTITION BY HASH (room_nid)
;
--@postgres CREATE TABLE events_0 PARTITION OF events FOR VALUES WITH (MODULUS 4, REMAINDER 0);
--@postgres CREATE TABLE events_1 PARTITION OF events FOR VALUES WITH (MODULUS 4, REMAINDER 1);
--@postgres CREATE TABLE events_2 PARTITION OF events FOR VALUES WITH (MODULUS 4, REMAINDER 2);
--@postgres CREATE TABLE events_3 PARTITION OF events FOR VALUES WITH (MODULUS 4, REMAINDER 3);
-- History: (depth, nid) is a total order within a room.
CREATE INDEX events_history ON events (room_nid, depth, event_nid) WHERE status = 0;
CREATE INDEX events_chain ON events (room_nid, chain, number) WHERE chain IS NOT NULL;
CREATE INDEX events_relations ON events (room_nid, relates_to, event_nid) WHERE relates_to IS NOT NULL;

-- Redactions that wait for their target, or apply to one. Bound: redactions of the room.
CREATE TABLE redactions (
    room_nid BIGINT NOT NULL,
    target_id TEXT NOT NULL,      -- the event ID to be redacted
    redaction_nid BIGINT NOT NULL,
    PRIMARY KEY (room_nid, target_id, redaction_nid)
);

-- Nodes of the state tries, content-addressed within their room. Janitor: the collector of unreachable nodes.
CREATE TABLE state_nodes (
    room_nid BIGINT NOT NULL,
    hash BYTES NOT NULL,
    data BYTES NOT NULL,
    PRIMARY KEY (room_nid, hash)
);

-- Everything a client can see has a position here, in commit order, without holes.
CREATE TABLE feed (
    pos BIGINT PRIMARY KEY,
    kind SMALLINT NOT NULL,       -- storage.feed.Kind
    flags SMALLINT NOT NULL DEFAULT 0,     -- storage.feed flags
    room_nid BIGINT,
    user_nid BIGINT,              -- the user it is for, or whose membership, receipt or devices changed
    ref BIGINT,                   -- nid of the wide row (event, receipt, account data, …)
    root BYTES,                   -- room entries: the room's resolved root after it
    head BYTES                    -- room entries: packed head_seq, depth, extremities after it
);
CREATE INDEX feed_room ON feed (room_nid, pos) WHERE room_nid IS NOT NULL;
CREATE INDEX feed_user ON feed (user_nid, pos) WHERE user_nid IS NOT NULL;
CREATE INDEX feed_kind ON feed (kind, pos) WHERE kind >= 16;

-- The current membership of every user ever in a room, following the resolved state.
CREATE TABLE memberships (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    membership SMALLINT NOT NULL, -- storage.memberships.Membership
    event_nid BIGINT NOT NULL,    -- the member event
    local SMALLINT NOT NULL,      -- 1: a user of this server
    forgotten SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (room_nid, user_nid)
);
CREATE INDEX memberships_user ON memberships (user_nid, membership);

-- Servers with joined members, following the resolved state.
CREATE TABLE room_servers (
    room_nid BIGINT NOT NULL,
    server TEXT NOT NULL,
    members BIGINT NOT NULL,      -- joined members; 0: gone
    left_nid BIGINT,              -- the event by which the last member left, to be sent even then
    PRIMARY KEY (room_nid, server)
);
CREATE INDEX room_servers_server ON room_servers (server, room_nid);

-- Invites and knocks whose room is not known here: stripped state as given.
CREATE TABLE stripped_states (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    state BYTES NOT NULL,         -- JSON list of stripped state events
    PRIMARY KEY (room_nid, user_nid)
);

-- Backward gaps: events named as parents and not held. Bound: gaps of joined rooms.
CREATE TABLE gaps (
    room_nid BIGINT NOT NULL,
    missing_id TEXT NOT NULL,     -- the event that is missing
    child_nid BIGINT NOT NULL,    -- an event that names it
    depth BIGINT NOT NULL,        -- depth of that child, as placed
    PRIMARY KEY (room_nid, missing_id, child_nid)
);

-- Answers to idempotent requests, so that a repeat gives the first answer. Janitor: rows older than a day.
CREATE TABLE transactions (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    key TEXT NOT NULL,            -- JSON list: endpoint, its path parameters, transaction ID
    room_nid BIGINT,
    event_nid BIGINT,
    event_id TEXT,                -- the event sent; NULL: another kind of request
    ts BIGINT NOT NULL,
    PRIMARY KEY (user_nid, device_id, key)
);
CREATE INDEX transactions_event ON transactions (room_nid, event_nid) WHERE event_nid IS NOT NULL;
CREATE INDEX transactions_age ON transactions (ts);
