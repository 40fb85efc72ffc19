//! Doubt: why people who are missing are held, however few they are. A poll that is complete and clean can still be a poll of
//! something else than before: of another workspace, through another key, of nobody.

use rusqlite::{Connection, OptionalExtension};

use super::Sql;

/// Why whoever is missing is held, until a person approves or nobody is missing any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing speaks against it.
    #[default]
    None,
    /// The Torq API key, region or address is another one than before.
    SideChanged {
        /// So many polls are to be complete before this can be over: one that is read through the new key alone, and before it
        /// the one that was under way when the key changed.
        polls: u8,
    },
    /// A poll saw nobody of those who were known.
    Strangers,
}

impl Doubt {
    /// What is noted in `connector.hold_removals`.
    pub(super) fn read(db: &Connection) -> Sql<Self> {
        db.query_row("SELECT hold_removals FROM connector", [], |row| row.get(0))
            .map(Self::of)
    }

    pub(super) fn write(self, db: &Connection) -> Sql<()> {
        db.execute(
            "UPDATE connector SET hold_removals = ?1 WHERE hold_removals <> ?1",
            [self.noted()],
        )?;
        Ok(())
    }

    /// A person approves: this is what they believe is no reason for doubt. What an approval that is not carried out yet overruled
    /// stays noted.
    pub(super) fn overrule(self, db: &Connection) -> Sql<()> {
        db.execute(
            "UPDATE connector SET approved_doubt = ?1 WHERE approved_doubt = 0 AND ?1 <> 0",
            [self.noted()],
        )?;
        Ok(())
    }

    /// A person takes back what they approved: what that overruled is in doubt again.
    pub(super) fn reinstate(db: &Connection) -> Sql<()> {
        db.execute(
            "UPDATE connector SET hold_removals = CASE hold_removals WHEN 0 THEN approved_doubt ELSE hold_removals END,
                approved_doubt = 0
             WHERE approved_doubt <> 0",
            [],
        )?;
        Ok(())
    }

    /// What was approved was carried out: there is nothing to be taken back any more.
    pub(super) fn settle(db: &Connection) -> Sql<()> {
        db.execute(
            "UPDATE connector SET approved_doubt = 0
             WHERE approved_doubt <> 0 AND NOT EXISTS (SELECT 1 FROM users WHERE removal = 'approved' AND removed_at IS NULL)",
            [],
        )?;
        Ok(())
    }

    fn of(noted: i64) -> Self {
        match noted {
            0 => Self::None,
            2 => Self::Strangers,
            3 => Self::SideChanged { polls: 1 },
            4 => Self::SideChanged { polls: 2 },
            _ => Self::SideChanged { polls: 0 },
        }
    }

    fn noted(self) -> i64 {
        match self {
            Self::None => 0,
            Self::SideChanged { polls: 0 } => 1,
            Self::Strangers => 2,
            Self::SideChanged { polls: 1 } => 3,
            Self::SideChanged { .. } => 4,
        }
    }

    /// The Torq side changes now. Pages of a poll that is under way were read through the old key, and say nothing about the new.
    pub(super) fn of_changed_side(db: &Connection) -> Sql<Self> {
        let under_way = db.query_row("SELECT 1 FROM poll", [], |_| Ok(())).optional()?.is_some();
        Ok(Self::SideChanged {
            polls: if under_way { 2 } else { 1 },
        })
    }

    /// What the polls since then make of it: `returned`, somebody who was missing is back; `strange`, people are missing, and
    /// nobody who was known was seen.
    pub(super) fn in_view_of(self, returned: bool, strange: bool) -> Self {
        match self {
            Self::Strangers if returned => Self::None,
            Self::None if strange => Self::Strangers,
            other => other,
        }
    }

    /// A complete and clean poll was judged, after which nobody is missing, or somebody is.
    pub(super) fn after_poll(self, missing: bool) -> Self {
        match self {
            Self::SideChanged { polls: polls @ 2.. } => Self::SideChanged { polls: polls - 1 },
            Self::SideChanged { .. } | Self::Strangers if !missing => Self::None,
            Self::SideChanged { .. } => Self::SideChanged { polls: 0 },
            other => other,
        }
    }

    /// A person approved what is held. Whoever is missing and was not shown as that is in doubt as before.
    pub(super) fn after_approval(self, unshown: bool) -> Self {
        match self {
            Self::SideChanged { polls: 0 } | Self::Strangers if !unshown => Self::None,
            other => other,
        }
    }

    /// Why, for a person.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::SideChanged { .. } => Some("the Torq API key, region or address is another one than before"),
            Self::Strangers => Some("nobody who was known came back: it looks like another workspace"),
        }
    }
}
