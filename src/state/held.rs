//! Who was held for removal at a moment that is past, as far as the events say it.
//!
//! That somebody is held is an event, and so is that it was approved, that they were removed, and that they came back. Of those who
//! came back under a version that noted none of that, what comes after the moment decides where it can, and what cannot be known is
//! said.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Sql, Store, stored};
use crate::view::EventKind;

/// Whose removals waited for approval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldThen {
    /// These did, by their Torq ids.
    pub surely: BTreeSet<String>,
    /// These had been held before, and came back at a time that nobody noted: before that moment, or after it. Of whom a poll saw that
    /// they changed it is known that they were back.
    pub perhaps: BTreeSet<String>,
}

/// What says that nobody is held any more, or is held anew.
const DECIDES: [EventKind; 5] = [
    EventKind::RemovalHeld,
    EventKind::RemovalApproved,
    EventKind::RemovalDropped,
    EventKind::UserDisappeared,
    EventKind::UserAppeared,
];
/// The same, and that somebody was seen.
const SEEN: [EventKind; 6] = [
    EventKind::RemovalHeld,
    EventKind::RemovalApproved,
    EventKind::RemovalDropped,
    EventKind::UserDisappeared,
    EventKind::UserAppeared,
    EventKind::UserChanged,
];

impl Store {
    /// Whose removals waited for approval at a moment. To be asked of moments within [`Self::past_horizon`].
    pub fn held_at(&self, at: Timestamp) -> Sql<HeldThen> {
        // One look at the state, whatever is written meanwhile.
        let _look = self.db.unchecked_transaction()?;
        let cut = self.cut(at)?;
        let before = self.of_held("max(no)", "no <=", cut, &SEEN)?;
        let after = self.of_held("min(no)", "no >", cut, &DECIDES)?;
        let mut held = HeldThen::default();
        // Approved is only what is held, and what was not held anew since was held then.
        let decided = after.iter().filter(|(id, kind)| match kind {
            EventKind::RemovalApproved => true,
            // It may have been approved before.
            EventKind::RemovalDropped => before.get(*id) == Some(&EventKind::RemovalHeld),
            _ => false,
        });
        held.surely.extend(decided.map(|(id, _)| id.clone()));
        let mut statement = self.db.prepare_cached(
            "SELECT id FROM users WHERE absent_polls > 0 AND removal = 'held' AND removed_at IS NULL",
        )?;
        for id in statement.query_map([], |row| row.get::<_, String>(0))? {
            let id = id?;
            if !after.contains_key(&id) {
                held.surely.insert(id);
            }
        }
        let was_held = before.into_iter().filter(|(_, kind)| *kind == EventKind::RemovalHeld);
        held.perhaps = was_held
            .map(|(id, _)| id)
            .filter(|id| !held.surely.contains(id))
            .collect();
        Ok(held)
    }

    /// The number of the last event up to a moment. Events are in the order of their numbers; a clock may have been set back in
    /// between.
    pub(super) fn cut(&self, at: Timestamp) -> Sql<i64> {
        self.db.query_row(
            "SELECT coalesce(max(no), 0) FROM events WHERE at <= ?1",
            [stored(at)],
            |row| row.get(0),
        )
    }

    /// Of everybody who was ever held, the outermost event of these kinds on one side of the cut.
    fn of_held(&self, outermost: &str, side: &str, cut: i64, kinds: &[EventKind]) -> Sql<BTreeMap<String, EventKind>> {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("'{}'", kind.as_str())).collect();
        // SQLite takes the other columns from the row that has the least or the greatest.
        let sql = format!(
            "SELECT user_id, kind, {outermost} FROM events
             WHERE {side} ?1 AND kind IN ({})
               AND user_id IN (SELECT user_id FROM events WHERE kind IN ('removal_held', 'removal_approved'))
             GROUP BY user_id",
            kinds.join(", ")
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query([cut])?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let kind = EventKind::parse(row.get_ref(1)?.as_str()?);
            if let (Some(id), Some(kind)) = (row.get(0)?, kind) {
                found.insert(id, kind);
            }
        }
        Ok(found)
    }
}
