-- Accounts of this server, their sessions and devices, and what users keep here.

-- Local accounts. Bound: accounts ever made; a deactivated one stays, so that its name is never given again.
CREATE TABLE accounts (
    user_nid BIGINT PRIMARY KEY,
    password TEXT,                -- Argon2id hash in PHC form; NULL: no password opens it
    created BIGINT NOT NULL,      -- milliseconds
    is_guest SMALLINT NOT NULL DEFAULT 0,
    is_admin SMALLINT NOT NULL DEFAULT 0,  -- beside those the configuration names
    deactivated SMALLINT NOT NULL DEFAULT 0,
    erased SMALLINT NOT NULL DEFAULT 0,    -- 1: the user asked that their messages be forgotten
    suspended SMALLINT NOT NULL DEFAULT 0,
    locked SMALLINT NOT NULL DEFAULT 0,
    shadow_banned SMALLINT NOT NULL DEFAULT 0,
    search TEXT NOT NULL          -- localpart and display name, case-folded, for the user directory
);

-- Devices of local users. Bound: MAX_DEVICES an account; the longest unseen goes.
CREATE TABLE devices (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,            -- as the user named it
    last_seen BIGINT,             -- milliseconds, to the minute or so
    last_ip TEXT,                 -- the address it was last seen at
    user_agent TEXT,              -- what it said it was
    PRIMARY KEY (user_nid, device_id)
);

-- Sessions: what an access token names. A row that is gone ends its tokens. Bound: one for each device.
CREATE TABLE sessions (
    session_nid BIGINT PRIMARY KEY,
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    gen BIGINT NOT NULL,          -- generation of the newest access token
    used_gen BIGINT NOT NULL,     -- newest generation that has been used; the one before it is dead then
    created BIGINT NOT NULL,      -- milliseconds
    UNIQUE (user_nid, device_id)
);

-- Refresh tokens, by hash. Bound: KEPT_GENERATIONS of a session; go with it. Janitor: expired rows.
CREATE TABLE refresh_tokens (
    hash BYTES PRIMARY KEY,       -- SHA-256 of the token
    session_nid BIGINT NOT NULL,
    gen BIGINT NOT NULL,          -- the generation it came with
    expires BIGINT                -- milliseconds; NULL: never
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_nid);

-- What users tell of themselves. Bound: MAX_PROFILE_BYTES an account.
CREATE TABLE profiles (
    user_nid BIGINT NOT NULL,
    field TEXT NOT NULL,          -- displayname, avatar_url, m.tz, …
    value BYTES NOT NULL,         -- JSON
    PRIMARY KEY (user_nid, field)
);

-- Account data, global and by room. Bound: MAX_TYPES an account and room.
CREATE TABLE account_data (
    user_nid BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,     -- 0: global
    type TEXT NOT NULL,
    datum_nid BIGINT NOT NULL,    -- named by the feed; new with every change
    content BYTES NOT NULL,       -- JSON object
    PRIMARY KEY (user_nid, room_nid, type)
);
CREATE INDEX account_data_nid ON account_data (user_nid, datum_nid);

-- Filters that clients keep here. Bound: MAX_FILTERS an account; the oldest goes.
CREATE TABLE filters (
    user_nid BIGINT NOT NULL,
    filter_id BIGINT NOT NULL,    -- counted for each account
    content BYTES NOT NULL,       -- JSON as the client gave it
    hash BYTES NOT NULL,          -- SHA-256 of the content: the same filter is kept once
    PRIMARY KEY (user_nid, filter_id),
    UNIQUE (user_nid, hash)
);

-- Tokens that let people register. Bound: made by administrators.
CREATE TABLE registration_tokens (
    token TEXT PRIMARY KEY,
    uses_allowed BIGINT,          -- NULL: any number
    used BIGINT NOT NULL DEFAULT 0,
    expires BIGINT                -- milliseconds; NULL: never
);

-- User-interactive authentication under way. Janitor: expired rows; a used one goes at once.
CREATE TABLE uia_sessions (
    session TEXT PRIMARY KEY,     -- random
    operation BYTES NOT NULL,     -- keyed hash of user, device, method, path and body: what it is good for
    completed BYTES NOT NULL,     -- JSON: stages done, with what they proved
    expires BIGINT NOT NULL       -- milliseconds
);
CREATE INDEX uia_sessions_expires ON uia_sessions (expires);

-- Nonces of the shared-secret registration. Janitor: expired rows; a used one goes at once.
CREATE TABLE nonces (
    nonce TEXT PRIMARY KEY,
    expires BIGINT NOT NULL       -- milliseconds
);
