-- What is kept for how long. Since this moment all events are kept; what happened before may have been pruned. NULL: nothing was.
ALTER TABLE connector ADD COLUMN events_since TEXT;

-- What a person was told, occasion by occasion: so that each is told once, and its end, too.
CREATE TABLE told (
    occasion TEXT PRIMARY KEY,
    mark     TEXT NOT NULL,                   -- how far it had come: a number of users, a day
    stage    TEXT NOT NULL CHECK (stage IN ('on', 'over', 'closed')), -- over: the end of it was not told yet
    at       TEXT NOT NULL,                   -- when it was told last
    streak   INTEGER NOT NULL                 -- how often in a row it came back soon
) WITHOUT ROWID;

-- Messages on their way. They name nobody.
CREATE TABLE messages (
    id      TEXT NOT NULL,                    -- the same in every attempt, and in both channels
    channel TEXT NOT NULL,                    -- webhook, command
    at      TEXT NOT NULL,
    body    TEXT NOT NULL,                    -- JSON
    PRIMARY KEY (id, channel)
) WITHOUT ROWID;
