-- How fresh it is what is known of Torq, and what of the past may still be asked for.

-- When a poll was last complete, whatever became of the delivery. Of earlier versions it is only known when a whole run ended.
ALTER TABLE connector ADD COLUMN read_at TEXT;
UPDATE connector SET read_at = coalesce(last_success, first_poll_at);
-- Times of an hour or more between two complete polls: what changed in them was seen at their end.
CREATE TABLE unread (
    since TEXT NOT NULL,
    until TEXT NOT NULL
);

-- Records of the running poll that count if it turns out that their users are not in the other listing: of users, by number.
CREATE TABLE poll_later (
    no INTEGER PRIMARY KEY,
    record TEXT NOT NULL
);

-- Since when it is paused. NULL: it is not, or that is not known any more.
ALTER TABLE connector ADD COLUMN paused_at TEXT;
UPDATE connector SET paused_at = (SELECT at FROM events WHERE kind = 'state_changed' AND json_extract(after, '$.state') = 'paused'
                                  ORDER BY no DESC LIMIT 1)
WHERE paused;

-- When a user last gave up this e-mail for another one: whoever looks back to before that needs to know of the account. Of those who
-- did so under an earlier version, it counts as now.
ALTER TABLE accounts ADD COLUMN left_at TEXT;
UPDATE accounts SET left_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE account_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key);

-- 1: a record of the running poll had no readable id; and of the last complete one, so that nobody was missing from it.
ALTER TABLE poll ADD COLUMN nameless INTEGER NOT NULL DEFAULT 0;
ALTER TABLE connector ADD COLUMN nameless INTEGER NOT NULL DEFAULT 0;
