-- Names of rooms: aliases of this server, and the published directory.

-- Aliases of this server. Bound: removed by their owners or the room's moderators; a few for each room.
CREATE TABLE aliases (
    alias TEXT PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    creator_nid BIGINT NOT NULL   -- the user who made it, who may always remove it
);
CREATE INDEX aliases_room ON aliases (room_nid);

-- Rooms that stand in this server's published directory. Bound: one row a room.
CREATE TABLE published_rooms (
    room_nid BIGINT PRIMARY KEY
);
