-- What was in doubt when a person approved what was held (as hold_removals; 0: nothing): whoever takes that back doubts it again.
ALTER TABLE connector ADD COLUMN approved_doubt INTEGER NOT NULL DEFAULT 0;
