//! What a person was told, and messages on their way: both survive the process, so that nothing is told twice or forgotten.

use jiff::Timestamp;
use rusqlite::params;

use super::{About, Sql, Store, instant, stored};
use crate::view::ConnectorStatus;

/// How far the telling of an occasion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was told, and lasts.
    On,
    /// It was told, is over, and that was not told yet.
    Over,
    /// Its end was told, too, or need not be.
    Closed,
}

impl Stage {
    const ALL: [Self; 3] = [Self::On, Self::Over, Self::Closed];

    fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Over => "over",
            Self::Closed => "closed",
        }
    }
}

/// What was told of an occasion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub occasion: String,
    /// How far it had come.
    pub mark: String,
    /// How far the telling has come.
    pub stage: Stage,
    /// When it was told last.
    pub at: Timestamp,
    /// How often in a row it came back soon.
    pub streak: u32,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The same in every attempt.
    pub id: String,
    /// By which way.
    pub channel: String,
    /// Since when it is on its way.
    pub at: Timestamp,
    /// JSON.
    pub body: String,
}

/// What there is to be told of, as the state knows it.
#[derive(Clone, Debug)]
pub struct Bearing {
    /// The connector itself.
    pub about: About,
    /// What is counted.
    pub status: ConnectorStatus,
    /// A run is going on: what is counted is about to change, and what it met last is not known yet.
    pub running: bool,
    /// When the first collection was finished.
    pub collected_at: Option<Timestamp>,
    /// When the first run that is known began.
    pub first_run: Option<Timestamp>,
}

impl Store {
    /// What there is to be told of.
    pub fn bearing(&mut self) -> Sql<Bearing> {
        let about = self.about()?;
        let (status, running) = (self.status()?, self.run.is_some());
        let (collected_at, first_run): (Option<String>, Option<String>) = self.db.query_row(
            "SELECT first_poll_at, (SELECT started FROM runs ORDER BY no LIMIT 1) FROM connector",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(Bearing {
            about,
            status,
            running,
            collected_at: instant(collected_at),
            first_run: instant(first_run),
        })
    }

    /// What was told so far.
    pub fn told(&self) -> Sql<Vec<Told>> {
        self.db
            .prepare_cached("SELECT occasion, mark, stage, at, streak FROM told ORDER BY occasion")?
            .query_map([], |row| {
                let stage: String = row.get(2)?;
                Ok(Told {
                    occasion: row.get(0)?,
                    mark: row.get(1)?,
                    stage: Stage::ALL
                        .into_iter()
                        .find(|known| known.as_str() == stage)
                        .unwrap_or(Stage::Closed),
                    at: instant(row.get(3)?).unwrap_or(Timestamp::UNIX_EPOCH),
                    streak: row.get(4)?,
                })
            })?
            .collect()
    }

    /// Notes what is told by now, in place of what was, and the messages that tell it: both or neither.
    pub fn note_told(&mut self, told: &[Told], messages: &[Outgoing]) -> Sql<()> {
        // A restart must not tell it again.
        self.durably(|store| {
            store.keep_books(|store| {
                let transaction = store.db.transaction()?;
                transaction.execute("DELETE FROM told", [])?;
                for one in told {
                    transaction.execute(
                        "INSERT INTO told (occasion, mark, stage, at, streak) VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![one.occasion, one.mark, one.stage.as_str(), stored(one.at), one.streak],
                    )?;
                }
                for one in messages {
                    transaction.execute(
                        "INSERT INTO messages (id, channel, at, body) VALUES (?1, ?2, ?3, ?4)",
                        params![one.id, one.channel, stored(one.at), one.body],
                    )?;
                }
                transaction.commit()
            })
        })
    }

    /// Messages on their way, oldest first.
    pub fn outgoing(&self) -> Sql<Vec<Outgoing>> {
        self.db
            .prepare_cached("SELECT id, channel, at, body FROM messages ORDER BY at, id, channel")?
            .query_map([], |row| {
                Ok(Outgoing {
                    id: row.get(0)?,
                    channel: row.get(1)?,
                    at: instant(row.get(2)?).unwrap_or(Timestamp::UNIX_EPOCH),
                    body: row.get(3)?,
                })
            })?
            .collect()
    }

    /// A message has arrived, or is given up.
    pub fn drop_message(&mut self, id: &str, channel: &str) -> Sql<()> {
        self.keep_books(|store| {
            store
                .db
                .execute("DELETE FROM messages WHERE id = ?1 AND channel = ?2", [id, channel])?;
            Ok(())
        })
    }

    /// Nobody is told any more: should somebody be later, they begin with what is the case then.
    pub fn forget_told(&mut self) -> Sql<()> {
        self.keep_books(|store| store.db.execute_batch("DELETE FROM told; DELETE FROM messages;"))
    }
}
