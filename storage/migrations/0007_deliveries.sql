-- How far what is said has come: the last event that any device of a user has, in small rooms.

-- One mark moving forward. Bound: one row a user and room of few members.
CREATE TABLE deliveries (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    delivery_nid BIGINT NOT NULL, -- named by the feed; a new one each time the mark moves
    event_id TEXT NOT NULL,
    depth BIGINT NOT NULL,        -- the event's place in history: (depth, event_nid)
    event_nid BIGINT NOT NULL,
    ts BIGINT NOT NULL,           -- milliseconds
    PRIMARY KEY (room_nid, user_nid)
);
CREATE INDEX deliveries_nid ON deliveries (delivery_nid);
