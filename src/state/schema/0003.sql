-- What removing a connector and restoring a copy of its state need to know.

-- Who made the application: only what this connector made may it take away. NULL: not known, so it counts as found.
ALTER TABLE connector ADD COLUMN application_origin TEXT CHECK (application_origin IN ('created', 'found'));
-- Since when a create of the application is under way that was not answered.
ALTER TABLE connector ADD COLUMN application_intent_at TEXT;
-- Since when the connector is being removed: it neither polls nor delivers any more.
ALTER TABLE connector ADD COLUMN removing_at TEXT;
-- In a copy of the state: when it was made. Whoever opens a state that says so has restored it.
ALTER TABLE connector ADD COLUMN copied_at TEXT;
