-- Which process places the events that wait in a room.

-- A lease on a room in which PDUs are staged. Deleted with the last of them.
CREATE TABLE staged_rooms (
    room_nid BIGINT PRIMARY KEY,
    holder TEXT NOT NULL,         -- the process that works on the room
    expires BIGINT NOT NULL       -- end of the lease, milliseconds: from then on any other may take it over
);
