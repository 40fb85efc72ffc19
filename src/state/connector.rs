//! The one row about the connector itself: its state, its two sides, what JumpCloud offers, whether it is paused.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::doubt::Doubt;
use super::{NewEvent, Sql, Store, events, instant, stored};
use crate::model::ApplicationId;
use crate::view::{ConnectorState, EventKind};

/// What is known about the connector itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Its state, as last noted.
    pub state: ConnectorState,
    /// Since when it is in that state.
    pub state_since: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
    /// What a person should do.
    pub action: Option<String>,
    /// Paused by a person.
    pub paused: bool,
    /// Since when; `None` when it is not, or when that is not known any more.
    pub paused_at: Option<Timestamp>,
    /// When a poll and its delivery last finished.
    pub last_success: Option<Timestamp>,
    /// When Torq was last read to its end, whatever became of the delivery.
    pub read_at: Option<Timestamp>,
    /// Whether a poll was ever complete.
    pub collected: bool,
    /// Torq's entry in SaaS Management, as last found.
    pub application: Option<ApplicationId>,
    /// Who made it; `None` when that is not known, as in a state of an earlier version.
    pub application_origin: Option<Origin>,
    /// Whether a create of it was sent and never answered.
    pub application_unanswered: bool,
    /// Since when the connector is being removed, if it is: it neither polls nor delivers any more.
    pub removing: Option<Timestamp>,
    /// When JumpCloud's accounts were last read.
    pub known_at: Option<Timestamp>,
    /// Since when matches with the directory count as fresh.
    pub directory_since: Option<Timestamp>,
    /// Whether accounts may be created there.
    pub accounts: Offered,
    /// Whether accounts may be associated there.
    pub associations: Offered,
    /// When the roles were last read.
    pub roles_read_at: Option<Timestamp>,
    /// Why removals were held last.
    pub hold_reason: Option<String>,
    /// What was last noticed to be configured otherwise than before, and when.
    pub notice: Option<(String, Timestamp)>,
    /// The last complete poll had a record without a readable id: it may be anybody, so nobody was missing from it.
    pub nameless: bool,
}

/// Who made something in JumpCloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This connector.
    Created,
    /// Somebody else: it was there.
    Found,
}

impl Origin {
    /// The name in the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Found => "found",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Found]
            .into_iter()
            .find(|origin| origin.as_str() == text)
    }
}

/// What the last delivery saw of an operation that is not in JumpCloud's public reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Not tried yet.
    Untried,
    /// It worked.
    Yes,
    /// Answered with 404, 405 or 501, at this time.
    No(Timestamp),
}

impl Offered {
    fn read(offered: Option<bool>, tried_at: Option<Timestamp>) -> Self {
        match (offered, tried_at) {
            (None, _) => Self::Untried,
            (Some(true), _) => Self::Yes,
            (Some(false), at) => Self::No(at.unwrap_or(Timestamp::UNIX_EPOCH)),
        }
    }
}

/// Fingerprints of what the connector is configured to connect.
#[derive(Clone, Debug)]
pub struct Sides {
    /// Torq workspace and region.
    pub torq: String,
    /// JumpCloud organisation, region and application.
    pub jumpcloud: String,
}

impl Store {
    /// What is known about the connector itself.
    pub fn about(&self) -> Sql<About> {
        self.db
            .prepare_cached(
                "SELECT state, reason, action, paused, last_success, first_poll_at, application_id, known_at,
                        accounts_offered, accounts_tried_at, associations_offered, associations_tried_at, roles_read_at,
                        directory_since, hold_reason, notice, noticed_at, application_origin, application_intent_at IS NOT NULL,
                        removing_at, state_since, paused_at, read_at, nameless
                 FROM connector",
            )?
            .query_row([], |row| {
                let state: String = row.get(0)?;
                Ok(About {
                    state: ConnectorState::parse(&state).unwrap_or(ConnectorState::Starting),
                    reason: row.get(1)?,
                    action: row.get(2)?,
                    paused: row.get(3)?,
                    last_success: instant(row.get(4)?),
                    collected: row.get::<_, Option<String>>(5)?.is_some(),
                    application: row.get::<_, Option<String>>(6)?.map(ApplicationId::new),
                    known_at: instant(row.get(7)?),
                    directory_since: instant(row.get(13)?),
                    accounts: Offered::read(row.get(8)?, instant(row.get(9)?)),
                    associations: Offered::read(row.get(10)?, instant(row.get(11)?)),
                    roles_read_at: instant(row.get(12)?),
                    hold_reason: row.get(14)?,
                    notice: row.get::<_, Option<String>>(15)?.zip(instant(row.get(16)?)),
                    application_origin: row.get::<_, Option<String>>(17)?.as_deref().and_then(Origin::parse),
                    application_unanswered: row.get(18)?,
                    removing: instant(row.get(19)?),
                    state_since: instant(row.get(20)?),
                    paused_at: instant(row.get(21)?),
                    read_at: instant(row.get(22)?),
                    nameless: row.get(23)?,
                })
            })
    }

    /// Since when it is noted to be in this state; `None` when it is noted to be in another.
    pub fn state_since(&self, state: ConnectorState) -> Sql<Option<Timestamp>> {
        self.db
            .query_row(
                "SELECT iif(state = ?1, state_since, NULL) FROM connector",
                [state.as_str()],
                |row| row.get(0),
            )
            .map(instant)
    }

    /// Notes the state; a change of it leaves an event. That a run is going on (`collecting`, `syncing`) is not noted: the
    /// status says it of the process that runs, and what was there before stays true until the run ends.
    pub fn note_state(
        &mut self,
        now: Timestamp,
        state: ConnectorState,
        reason: Option<&str>,
        action: Option<&str>,
    ) -> Sql<()> {
        let about = self.about()?;
        if about.state == state && about.reason.as_deref() == reason && about.action.as_deref() == action {
            return Ok(());
        }
        self.keep_books(|store| store.write_state(now, &about, state, reason, action))
    }

    fn write_state(
        &mut self,
        now: Timestamp,
        about: &About,
        state: ConnectorState,
        reason: Option<&str>,
        action: Option<&str>,
    ) -> Sql<()> {
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE connector SET state = ?1, reason = ?2, action = ?3,
                state_since = CASE WHEN state = ?1 THEN state_since ELSE ?4 END",
            params![state.as_str(), reason, action, stored(now)],
        )?;
        if about.state != state {
            let event = NewEvent {
                before: Some(serde_json::json!({ "state": about.state.as_str() })),
                after: Some(serde_json::json!({ "state": state.as_str() })),
                reason,
                ..NewEvent::default()
            };
            events::record(&transaction, now, self.run, EventKind::StateChanged, event)?;
        }
        transaction.commit()
    }

    /// Notes in this state, which is a new one, that there was another.
    pub(super) fn note_gone(&mut self, now: Timestamp, reason: &str) -> Sql<()> {
        notice(&self.db, now, None, reason)
    }

    /// Compares the configured sides with those that the state was made with, and notes them. Returns what changed, for a person.
    ///
    /// Another JumpCloud side means that nothing is known of it: its accounts will be read and adopted before anything is
    /// created; which of the old ones are ours is kept, should the old side come back. On another Torq side, whoever is missing
    /// is held: nobody is removed because a key was exchanged.
    pub fn reconcile_sides(&mut self, now: Timestamp, sides: &Sides) -> Sql<Vec<String>> {
        let (torq, jumpcloud): (Option<String>, Option<String>) =
            self.db
                .query_row("SELECT torq_side, jumpcloud_side FROM connector", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        // Each with how many accounts are not known any more because of it.
        let mut changes: Vec<(String, Option<u64>)> = Vec::new();
        let transaction = self.db.transaction()?;
        if torq.as_ref() != Some(&sides.torq) {
            // A new key of the same workspace looks just the same: a poll that is under way goes on, and only if users
            // turn out to be missing does the guard hold them.
            if torq.is_some() {
                Doubt::of_changed_side(&transaction)?.write(&transaction)?;
                let change = "the Torq API key, region or address is another one than before: whoever is missing now is removed only after approval";
                changes.push((change.to_owned(), None));
            }
            transaction.execute("UPDATE connector SET torq_side = ?1", [&sides.torq])?;
        }
        if jumpcloud.as_ref() != Some(&sides.jumpcloud) {
            let left = keep_made(&transaction, None)?;
            transaction.execute(
                "UPDATE connector SET jumpcloud_side = ?1, application_id = NULL, application_origin = NULL,
                    application_intent_at = NULL, application_settles_at = NULL, known_at = NULL,
                    accounts_offered = NULL, accounts_tried_at = NULL, associations_offered = NULL, associations_tried_at = NULL",
                [&sides.jumpcloud],
            )?;
            let known: u64 = transaction.query_row(
                "SELECT count(*) FROM accounts WHERE account_id IS NOT NULL",
                [],
                |row| row.get(0),
            )?;
            transaction.execute("DELETE FROM accounts", [])?;
            if jumpcloud.is_some() {
                let change = format!(
                    "the JumpCloud organisation, region or application is another one than before: what is there is read first, \
                     and {left} accounts that were made before stay where they are"
                );
                changes.push((change, Some(known)));
            }
        }
        for (change, forgotten) in &changes {
            tracing::warn!(connector = %self.name, "{change}");
            // Whoever looks back from later must see where the accounts of before went.
            notice_forgetting(&transaction, now, self.run, change, *forgotten)?;
        }
        transaction.commit()?;
        Ok(changes.into_iter().map(|(change, _)| change).collect())
    }

    /// A create of the application is about to be sent. Whether an earlier one was not answered.
    pub fn creating_application(&mut self, now: Timestamp) -> Sql<bool> {
        let unanswered = self.about()?.application_unanswered;
        self.db.execute(
            "UPDATE connector SET application_intent_at = coalesce(application_intent_at, ?1)",
            [stored(now)],
        )?;
        Ok(unanswered)
    }

    /// The create of the application did not take effect. `unanswered` as [`Self::creating_application`] said.
    pub fn application_not_created(&mut self, unanswered: bool) -> Sql<()> {
        if !unanswered {
            self.db
                .execute("UPDATE connector SET application_intent_at = NULL", [])?;
        }
        Ok(())
    }

    /// The application is about to be created, or was not answered for: the create may take effect until then. `None`: it is known
    /// what became of it.
    pub fn note_application_under_way(&mut self, until: Option<Timestamp>) -> Sql<()> {
        self.db
            .execute("UPDATE connector SET application_settles_at = ?1", [until.map(stored)])?;
        Ok(())
    }

    /// Until when a create of the application may take effect that was not answered.
    pub fn application_settles_at(&self) -> Sql<Option<Timestamp>> {
        self.db
            .query_row("SELECT application_settles_at FROM connector", [], |row| row.get(0))
            .map(instant)
    }

    /// Notes Torq's entry in SaaS Management, and who made it. One that was not there before a create of ours that was not
    /// answered, and is now, is ours. Another one than before: the accounts of the old one are not known to be there, and what was
    /// sent to it cannot have made what is here.
    pub fn note_application(&mut self, now: Timestamp, id: &ApplicationId, origin: Origin) -> Sql<()> {
        let transaction = self.db.transaction()?;
        let known: Option<String> =
            transaction.query_row("SELECT application_id FROM connector", [], |row| row.get(0))?;
        if known.as_deref() == Some(id.as_str()) {
            transaction.execute(
                "UPDATE connector SET application_intent_at = NULL, application_settles_at = NULL
                 WHERE application_intent_at IS NOT NULL OR application_settles_at IS NOT NULL",
                [],
            )?;
            return transaction.commit();
        }
        keep_made(&transaction, None)?;
        transaction.execute(
            "UPDATE accounts SET intent_at = NULL, look = 0, conflict = 0 WHERE intent_at IS NOT NULL OR look <> 0",
            [],
        )?;
        transaction.execute(
            "UPDATE connector SET application_id = ?1, known_at = NULL, accounts_offered = NULL, associations_offered = NULL,
                application_origin = CASE WHEN application_intent_at IS NOT NULL THEN 'created' ELSE ?2 END,
                application_intent_at = NULL, application_settles_at = NULL",
            [id.as_str(), origin.as_str()],
        )?;
        if let Some(known) = known {
            let text = format!(
                "the application in JumpCloud is another one than before ({id} instead of {known}): it was deleted and made anew, \
                 or the credentials are those of another organisation"
            );
            tracing::warn!(connector = %self.name, "{text}");
            notice(&transaction, now, self.run, &text)?;
        }
        transaction.commit()
    }

    /// Notes whether accounts can be created in JumpCloud.
    pub fn note_accounts_offered(&mut self, now: Timestamp, offered: bool) -> Sql<()> {
        self.db
            .prepare_cached(
                "UPDATE connector SET accounts_offered = ?1, accounts_tried_at = ?2
                 WHERE accounts_offered IS NOT ?1 OR NOT ?1",
            )?
            .execute(params![offered, stored(now)])?;
        Ok(())
    }

    /// Notes whether accounts can be associated in JumpCloud.
    pub fn note_associations_offered(&mut self, now: Timestamp, offered: bool) -> Sql<()> {
        self.db
            .prepare_cached(
                "UPDATE connector SET associations_offered = ?1, associations_tried_at = ?2
                 WHERE associations_offered IS NOT ?1 OR NOT ?1",
            )?
            .execute(params![offered, stored(now)])?;
        Ok(())
    }

    /// Forgets what was not offered, so that it is tried again.
    pub fn forget_not_offered(&mut self) -> Sql<()> {
        self.db.execute(
            "UPDATE connector SET accounts_offered = NULLIF(accounts_offered, 0),
                associations_offered = NULLIF(associations_offered, 0)",
            [],
        )?;
        Ok(())
    }

    /// Pauses or resumes the connector. Whether that is a change.
    pub fn pause(&mut self, now: Timestamp, paused: bool) -> Sql<bool> {
        let about = self.about()?;
        if about.paused == paused {
            return Ok(false);
        }
        let run = self.run;
        // A person is told that it is so.
        self.durably(|store| {
            store.keep_books(|store| {
                let transaction = store.db.transaction()?;
                let since = paused.then(|| stored(now));
                transaction.execute(
                    "UPDATE connector SET paused = ?1, paused_at = ?2",
                    params![paused, since],
                )?;
                let (own, other) = (about.state.as_str(), ConnectorState::Paused.as_str());
                let (before, after) = if paused { (own, other) } else { (other, own) };
                let event = NewEvent {
                    before: Some(serde_json::json!({ "state": before })),
                    after: Some(serde_json::json!({ "state": after })),
                    reason: Some("by a person"),
                    ..NewEvent::default()
                };
                events::record(&transaction, now, run, EventKind::StateChanged, event)?;
                transaction.commit()
            })
        })?;
        Ok(true)
    }

    /// Keeps the names of the roles.
    pub fn note_roles(&mut self, now: Timestamp, roles: &std::collections::BTreeMap<String, String>) -> Sql<()> {
        let transaction = self.db.transaction()?;
        for (id, name) in roles {
            transaction.execute(
                "INSERT INTO roles (id, name) VALUES (?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET name = ?2 WHERE name IS NOT ?2",
                [id, name],
            )?;
        }
        transaction.execute("UPDATE connector SET roles_read_at = ?1", [stored(now)])?;
        transaction.commit()
    }
}

/// Keeps which accounts are ours beyond the time in which their application is the connector's: all of them, or that of an e-mail.
/// Returns how many they are.
pub(super) fn keep_made(db: &Connection, email: Option<&str>) -> Sql<usize> {
    db.execute(
        "INSERT OR IGNORE INTO made (application_id, account_id)
         SELECT c.application_id, a.account_id FROM accounts a, connector c
         WHERE a.origin = 'created' AND a.account_id IS NOT NULL AND c.application_id IS NOT NULL
           AND (?1 IS NULL OR a.email_key = ?1)",
        [email],
    )
}

/// Notes that something is configured otherwise than before: as an event, and for the status.
pub(super) fn notice(db: &Connection, now: Timestamp, run: Option<i64>, text: &str) -> Sql<()> {
    notice_forgetting(db, now, run, text, None)
}

/// The same, and that so many accounts are not known any more because of it.
fn notice_forgetting(db: &Connection, now: Timestamp, run: Option<i64>, text: &str, forgotten: Option<u64>) -> Sql<()> {
    db.execute(
        "UPDATE connector SET notice = ?1, noticed_at = ?2",
        [text, &stored(now)],
    )?;
    let event = NewEvent {
        before: forgotten.map(|accounts| serde_json::json!({ "accounts": accounts })),
        after: forgotten.map(|_| serde_json::json!({ "accounts": 0 })),
        reason: Some(text),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::StateChanged, event)
}
