-- Receipts, messages between devices, and the keys of devices.

-- The newest receipt of each kind and thread a user has in a room. Bound: users × rooms × threads read.
CREATE TABLE receipts (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    kind TEXT NOT NULL,           -- m.read or m.read.private
    thread TEXT NOT NULL,         -- '' for a receipt without thread
    receipt_nid BIGINT NOT NULL,  -- named by the feed
    event_id TEXT NOT NULL,
    ts BIGINT NOT NULL,           -- milliseconds, as the receipt claims
    PRIMARY KEY (room_nid, user_nid, kind, thread)
);
CREATE INDEX receipts_nid ON receipts (receipt_nid);

-- Messages that wait for a device. Janitor: deleted when the device shows that it has them, and with the device.
CREATE TABLE to_device (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    message_nid BIGINT NOT NULL,  -- named by the feed, whose order is theirs
    content BYTES NOT NULL,       -- the event as the client gets it, JSON
    PRIMARY KEY (user_nid, device_id, message_nid)
);
CREATE INDEX feed_to_device ON feed (ref) WHERE kind = 6;

-- To-device EDUs taken in, so that a repeat is not delivered twice. Janitor: rows older than a week.
CREATE TABLE received_messages (
    origin TEXT NOT NULL,         -- the sending server
    message_id TEXT NOT NULL,     -- as it names the EDU
    ts BIGINT NOT NULL,
    PRIMARY KEY (origin, message_id)
);
CREATE INDEX received_messages_age ON received_messages (ts);

-- Identity keys of local devices. Bound: one row a device; deleted with it.
CREATE TABLE device_keys (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    keys BYTES NOT NULL,          -- the signed object, JSON
    PRIMARY KEY (user_nid, device_id)
);

-- One-time keys not yet claimed. Bound: `MAX_ONE_TIME_KEYS` for each device and algorithm.
CREATE TABLE one_time_keys (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    place BIGINT NOT NULL,        -- order of upload: the oldest is claimed first
    key BYTES NOT NULL,           -- JSON
    PRIMARY KEY (user_nid, device_id, algorithm, key_id)
);

-- The key given out when no one-time key is left. Bound: one for each device and algorithm.
CREATE TABLE fallback_keys (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    key BYTES NOT NULL,           -- JSON
    used SMALLINT NOT NULL,       -- 1: given out at least once
    PRIMARY KEY (user_nid, device_id, algorithm)
);

-- How often each local user's devices changed: `stream_id` of device list updates. Bound: one row a user.
CREATE TABLE device_list_streams (
    user_nid BIGINT PRIMARY KEY,
    stream_id BIGINT NOT NULL
);
