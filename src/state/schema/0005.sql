-- Events are asked for by time, by user and by kind, newest first. Without these, each question would read all that ever
-- happened; with more, each event would cost more to write than it does to keep.
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_user ON events (user_id) WHERE user_id IS NOT NULL;
-- The kinds of which there are few. Of the others some are always near the end.
CREATE INDEX events_by_kind ON events (kind, at)
    WHERE kind NOT IN ('user_appeared', 'user_changed', 'account_created', 'account_found', 'account_associated');
