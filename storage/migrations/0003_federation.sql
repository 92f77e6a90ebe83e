-- Talking with other servers: their keys, what they have been sent, what they sent.

-- Keys of other servers. A key ID never changes its key. Bound: keys of servers ever met.
CREATE TABLE server_keys (
    server TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key BYTES NOT NULL,    -- Ed25519, 32 bytes
    valid_until BIGINT NOT NULL,  -- milliseconds; as published, or when an old key expired
    expired SMALLINT NOT NULL,    -- 1: listed under old_verify_keys, so good for events up to valid_until alone
    fetched BIGINT NOT NULL,      -- when the document was fetched, milliseconds
    document BYTES NOT NULL,      -- the key document that says so, canonical JSON with its own signatures
    PRIMARY KEY (server, key_id)
);

-- How each destination does. Bound: servers ever sent to; a row goes back to zeros, it is not deleted.
CREATE TABLE destinations (
    server TEXT PRIMARY KEY,
    failing_since BIGINT,         -- milliseconds; NULL: it answers
    retry_at BIGINT NOT NULL DEFAULT 0,    -- not to be asked before, milliseconds
    delay BIGINT NOT NULL DEFAULT 0,       -- the present back-off, milliseconds
    position BIGINT               -- the feed position it has everything up to; NULL: as far as its shard
);
CREATE INDEX destinations_behind ON destinations (server) WHERE position IS NOT NULL;

-- Destinations fall into shards by a hash of their name; the process that holds a shard's lease sends to them.
-- Bound: one row a shard.
CREATE TABLE federation_shards (
    shard SMALLINT PRIMARY KEY,
    holder TEXT,                  -- the process; NULL: free
    expires BIGINT NOT NULL,      -- end of the lease, milliseconds
    position BIGINT NOT NULL      -- destinations that are not behind have everything up to this feed position
);

-- Processes that share the sending. Janitor: every renewal deletes the rows that ran out.
CREATE TABLE federation_senders (
    holder TEXT PRIMARY KEY,
    expires BIGINT NOT NULL       -- milliseconds
);

-- Events for a destination that has no member in the room (an invite withdrawn), while it is behind.
-- Deleted once sent. Bound: invites sent there before.
CREATE TABLE outbound_extras (
    server TEXT NOT NULL,
    pos BIGINT NOT NULL,          -- the event's place in the feed
    room_nid BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (server, pos)
);

-- EDUs that must arrive (to-device messages). Deleted once the destination answered 200. Bound: MAX_WAITING in
-- storage/outbound_edus.py for each destination.
CREATE TABLE outbound_edus (
    edu_nid BIGINT PRIMARY KEY,
    server TEXT NOT NULL,
    ts BIGINT NOT NULL,           -- when it was queued, milliseconds: the order of sending
    edu BYTES NOT NULL            -- canonical JSON of the whole EDU
);
CREATE INDEX outbound_edus_server ON outbound_edus (server, ts, edu_nid);

-- What this server built, by room, for destinations that catch up.
CREATE INDEX feed_federate ON feed (room_nid, pos) WHERE (flags & 1) = 1;

-- Transactions of other servers already answered. Janitor: rows older than a day.
CREATE TABLE inbound_transactions (
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    ts BIGINT NOT NULL,           -- when it was answered, milliseconds
    answer BYTES NOT NULL,        -- the JSON body of the answer
    PRIMARY KEY (origin, txn_id)
);
CREATE INDEX inbound_transactions_age ON inbound_transactions (ts);

-- PDUs accepted for later: their parents are missing or their room is busy. Deleted once placed or given up.
-- Bound: bytes for each origin and room, checked before the insert.
CREATE TABLE staged_pdus (
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    staged_nid BIGINT NOT NULL,   -- the order of arrival
    origin TEXT NOT NULL,         -- the server that sent it
    ts BIGINT NOT NULL,           -- when it came, milliseconds
    size BIGINT NOT NULL,         -- bytes of the PDU
    pdu BYTES NOT NULL,           -- canonical JSON, signatures checked
    PRIMARY KEY (room_nid, event_id)
);
CREATE INDEX staged_pdus_order ON staged_pdus (room_nid, staged_nid);
CREATE INDEX staged_pdus_origin ON staged_pdus (origin, room_nid);
