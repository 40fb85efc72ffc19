-- A create without an answer may still take effect: until this moment, not to be in JumpCloud's list is not yet not to be there.
ALTER TABLE accounts ADD COLUMN settles_at TEXT;
ALTER TABLE connector ADD COLUMN application_settles_at TEXT; -- the same for the application; NULL: none is under way
