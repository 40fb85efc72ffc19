-- What a change of configuration leaves behind, and what is to be told of it and of the guard.

ALTER TABLE connector ADD COLUMN hold_reason TEXT;     -- why removals were held last
ALTER TABLE connector ADD COLUMN notice TEXT;          -- what is configured otherwise than before
ALTER TABLE connector ADD COLUMN noticed_at TEXT;
-- connector.hold_removals says why whoever is missing is held, however few they are:
-- 0: nothing does; 1: the Torq side changed; 2: a poll saw nobody who was known;
-- 3, 4: the Torq side changed, and one or two polls are still to be complete before that can be over.

ALTER TABLE poll ADD COLUMN newest INTEGER;            -- the highest users.no at its beginning: who has a higher one is new in it

-- Accounts that we made under an application that is not the connector's any more. Should it be that again, they are ours.
CREATE TABLE made (
    application_id TEXT NOT NULL,
    account_id     TEXT NOT NULL,
    PRIMARY KEY (application_id, account_id)
) WITHOUT ROWID;

-- Table releases: also removals of users who are back since. They were believed on their day, and count for it.
