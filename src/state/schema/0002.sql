-- Events are asked for by time, by user and by kind, newest first; without these each question would read all that ever happened.
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_user ON events (user_id, at) WHERE user_id IS NOT NULL;
CREATE INDEX events_by_kind ON events (kind, at);
