-- State of one connector. Times are UTC, RFC 3339 with milliseconds, so that they sort as text.

-- The one row about the connector itself.
CREATE TABLE connector (
    only                  INTEGER PRIMARY KEY CHECK (only = 1),
    state                 TEXT NOT NULL DEFAULT 'starting',
    state_since           TEXT NOT NULL,
    reason                TEXT,               -- why it is in that state
    action                TEXT,               -- what a person should do
    paused                INTEGER NOT NULL DEFAULT 0,
    last_success          TEXT,               -- when a poll and its delivery last finished
    first_poll_at         TEXT,               -- when the first poll was complete; NULL: still collecting
    torq_side             TEXT,               -- fingerprint of workspace and region
    hold_removals         INTEGER NOT NULL DEFAULT 0, -- 1: the Torq side changed; whoever is missing now is held
    jumpcloud_side        TEXT,               -- fingerprint of organisation, region and application
    filters               TEXT,               -- fingerprint of the filters that users.filtered was made with
    application_id        TEXT,               -- Torq's entry in SaaS Management
    known_at              TEXT,               -- when JumpCloud's accounts were last read; NULL: never
    directory_since       TEXT,               -- matches older than this are to be asked again
    accounts_offered      INTEGER,            -- may accounts be created? NULL: not tried yet
    accounts_tried_at     TEXT,
    associations_offered  INTEGER,            -- may accounts be associated? NULL: not tried yet
    associations_tried_at TEXT,
    roles_read_at         TEXT
);

-- The snapshot, and the users who were removed from it.
CREATE TABLE users (
    no           INTEGER PRIMARY KEY,         -- by which polls note whom they saw
    id           TEXT NOT NULL UNIQUE,        -- Torq's id
    email        TEXT NOT NULL,               -- as Torq sent it
    email_key    TEXT NOT NULL,               -- folded: joins with accounts
    status       TEXT NOT NULL,
    sso          INTEGER NOT NULL,
    role_id      TEXT NOT NULL,
    created      TEXT,
    last_login   TEXT,
    fingerprint  INTEGER NOT NULL,            -- of the whole record: an unchanged user is not read
    first_seen   TEXT NOT NULL,
    filtered     TEXT,                        -- why the filters leave the user out; NULL: delivered
    absent_polls INTEGER NOT NULL DEFAULT 0,  -- complete polls in a row that did not see the user
    removal      TEXT CHECK (removal IN ('held', 'approved')),
    removed_at   TEXT                         -- NULL: present
);
CREATE INDEX users_by_email ON users (email_key);
CREATE INDEX users_absent ON users (no) WHERE absent_polls > 0 AND removed_at IS NULL;
CREATE INDEX users_removed ON users (removed_at) WHERE removed_at IS NOT NULL;

-- What JumpCloud is known to have, by e-mail: users with the same e-mail share one account.
CREATE TABLE accounts (
    email_key         TEXT PRIMARY KEY,
    account_id        TEXT,                   -- NULL: JumpCloud is not known to have one
    origin            TEXT CHECK (origin IN ('created', 'found')),
    directory_user_id TEXT,                   -- with whom the account is associated
    match_id          TEXT,                   -- the directory user with this e-mail
    matched_at        TEXT,                   -- when the directory was asked; NULL: never
    intent_at         TEXT,                   -- since when a create is under way that was not answered
    look              INTEGER NOT NULL DEFAULT 0, -- 1: look into JumpCloud's list before anything is sent for it
    conflict          INTEGER NOT NULL DEFAULT 0, -- 1: a create was answered with 409: there must be one
    refused           TEXT,                   -- why the create was refused for good
    refused_at        TEXT,
    association_refused TEXT,                 -- the directory user with whom associating was refused for good
    association_words TEXT,                   -- in the peer's words
    absent_polls      INTEGER NOT NULL DEFAULT 0, -- complete polls in a row that saw no user with this e-mail
    release           TEXT CHECK (release IN ('reported', 'held', 'approved', 'due')) -- what becomes of it without a user
) WITHOUT ROWID;
CREATE INDEX accounts_look ON accounts (email_key) WHERE look = 1;
CREATE INDEX accounts_due ON accounts (email_key) WHERE release = 'due';

-- Accounts that lost their user to a changed e-mail and were released unasked: the guard counts those of a day.
CREATE TABLE releases (
    at        TEXT NOT NULL,
    email_key TEXT NOT NULL
);

CREATE TABLE roles (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL
) WITHOUT ROWID;

-- Append-only.
CREATE TABLE events (
    no      INTEGER PRIMARY KEY,
    at      TEXT NOT NULL,
    run     INTEGER,
    kind    TEXT NOT NULL,
    user_id TEXT,
    email   TEXT,
    before  TEXT,                             -- JSON: the fields that changed
    after   TEXT,
    reason  TEXT
);
CREATE INDEX events_unreadable ON events (user_id) WHERE kind = 'record_unreadable';

CREATE TABLE runs (
    no          INTEGER PRIMARY KEY,
    started     TEXT NOT NULL,
    finished    TEXT,
    outcome     TEXT,
    reason      TEXT,
    appeared    INTEGER NOT NULL DEFAULT 0,
    changed     INTEGER NOT NULL DEFAULT 0,
    disappeared INTEGER NOT NULL DEFAULT 0,
    created     INTEGER NOT NULL DEFAULT 0,
    found       INTEGER NOT NULL DEFAULT 0,
    associated  INTEGER NOT NULL DEFAULT 0,
    deleted     INTEGER NOT NULL DEFAULT 0,
    refused     INTEGER NOT NULL DEFAULT 0
);

-- The poll that is running; empty between polls.
CREATE TABLE poll (
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    started    TEXT NOT NULL,
    clean      INTEGER NOT NULL DEFAULT 1     -- 0: a record had no readable id, so nobody is missing
);

-- Its pages so far. The last one of a listing says where that goes on.
CREATE TABLE poll_pages (
    no         INTEGER PRIMARY KEY,
    listing    TEXT NOT NULL,                 -- sso, local; empty for pages of a pass that was started again
    at         TEXT NOT NULL,
    next_token TEXT,                          -- of the next page; NULL: this was the last
    seen       BLOB NOT NULL                  -- users.no of this page, as differences
);

-- Everyone who is not removed, and where their account stands.
CREATE VIEW standing AS
SELECT u.no, u.id, u.email, u.email_key, u.status, u.sso, u.role_id, u.created, u.last_login, u.first_seen,
       CASE WHEN u.removal = 'held' THEN 'held'
            WHEN u.filtered IS NOT NULL THEN 'filtered'
            WHEN a.account_id IS NOT NULL THEN a.origin
            WHEN u.email_key = '' THEN 'parked'
            WHEN a.refused IS NOT NULL THEN 'parked'
            ELSE 'pending' END AS account,
       a.account_id, a.directory_user_id,
       CASE WHEN u.removal = 'held' THEN 'gone from Torq; the removal waits for approval'
            WHEN u.removal = 'approved' THEN 'gone from Torq; the removal is approved'
            WHEN u.filtered IS NOT NULL THEN u.filtered
            WHEN a.account_id IS NOT NULL THEN
                CASE WHEN a.association_refused = a.match_id THEN 'associating was refused: ' || a.association_words END
            WHEN u.email_key = '' THEN 'Torq has no e-mail for this user'
            ELSE a.refused END AS reason,
       (a.account_id IS NOT NULL AND a.match_id IS NOT NULL AND a.match_id IS NOT a.directory_user_id
        AND u.filtered IS NULL AND u.removal IS NULL) AS association_pending
FROM users u LEFT JOIN accounts a ON a.email_key = u.email_key
WHERE u.removed_at IS NULL;
