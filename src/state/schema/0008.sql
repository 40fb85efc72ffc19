-- What was in doubt when a person approved what was held (as hold_removals; 0: nothing): whoever takes that back doubts it again.
ALTER TABLE connector ADD COLUMN approved_doubt INTEGER NOT NULL DEFAULT 0;
-- For a while, 5 meant an approval that was taken back.
UPDATE connector SET hold_removals = 2 WHERE hold_removals = 5;
