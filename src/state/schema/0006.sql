-- What is kept for how long. Since this moment all events are kept; what happened before may have been pruned. NULL: nothing was.
ALTER TABLE connector ADD COLUMN events_since TEXT;
