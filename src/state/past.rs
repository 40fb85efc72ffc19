//! The past: who was in Torq at a moment, and which accounts they had, reconstructed from the events.
//!
//! What is known now is walked back, event by event, to the moment that is asked for: each event says what was there before it. What
//! an event does not say (those of earlier versions say less), is then looked for further back, where somebody last said it.
//! Whatever nobody said stays unknown; nothing is guessed.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Map, Value};

use super::connector::Origin;
use super::erase::FORGOTTEN;
use super::shown::read_event;
use super::{Sql, Store, instant, stored};
use crate::model::EmailKey;
use crate::view::{EventKind, EventView};

/// A user as they were. What nobody said of them is `None`, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastUser {
    /// Torq's id.
    pub id: String,
    /// The e-mail, as Torq sent it.
    pub email: Option<String>,
    /// Torq's status.
    pub status: Option<String>,
    /// Through SSO, or local.
    pub sso: Option<bool>,
    /// The id of the role.
    pub role_id: Option<String>,
    /// When the user was created in Torq, as Torq sent it.
    pub created: Option<String>,
    /// The last login until then, as Torq sent it.
    pub last_login: Option<String>,
    /// When a poll first saw the user, or saw them again after they had left.
    pub first_seen: Option<Timestamp>,
    /// The account in JumpCloud that was known then.
    pub account: Option<PastAccount>,
}

/// An account as it was known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastAccount {
    /// Its id.
    pub id: Option<String>,
    /// Who had made it.
    pub origin: Option<Origin>,
    /// The directory user with whom it was associated.
    pub directory_user_id: Option<String>,
}

/// What was at a moment.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Everybody who was there, in the order of their e-mails.
    pub users: Vec<PastUser>,
    /// Of so many of them something is not known any more.
    pub unknown: u64,
}

/// From which moment on the past is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// When the first collection was complete; `None`: it is not. Nobody knows who was there before.
    pub collected: Option<Timestamp>,
    /// Since when everything that happened is kept; `None`: since ever.
    pub kept: Option<Timestamp>,
}

impl Horizon {
    /// The earliest moment that can be looked back to; `None` while there is none.
    pub fn earliest(&self) -> Option<Timestamp> {
        Some(self.collected?.max(self.kept.unwrap_or(Timestamp::MIN)))
    }
}

/// The fields of a user, by their names in events.
const FIELDS: [&str; 7] = [
    "email",
    "status",
    "sso",
    "role_id",
    "created",
    "last_login",
    "first_seen",
];

impl Store {
    /// From which moment on [`Self::users_at`] knows who was there.
    pub fn past_horizon(&self) -> Sql<Horizon> {
        let collected: Option<String> = self
            .db
            .query_row("SELECT first_poll_at FROM connector", [], |row| row.get(0))?;
        Ok(Horizon {
            collected: instant(collected),
            kept: self.horizon()?,
        })
    }

    /// How many people were erased after a moment: nobody can say any more whether they were there.
    pub fn erased_since(&self, at: Timestamp) -> Sql<u64> {
        self.db.query_row(
            "SELECT count(*) FROM events WHERE at > ?1 AND kind = 'state_changed' AND instr(reason, ?2) = 1",
            [&stored(at), FORGOTTEN],
            |row| row.get(0),
        )
    }

    /// Who was there at a moment, and what JumpCloud was known to have for them. To be asked of moments within
    /// [`Self::past_horizon`].
    pub fn users_at(&self, at: Timestamp) -> Sql<Past> {
        // One look at the state, whatever is written meanwhile.
        let _look = self.db.unchecked_transaction()?;
        self.look_back(at)
    }

    fn look_back(&self, at: Timestamp) -> Sql<Past> {
        let mut walk = Walk::from_present(&self.db)?;
        let cut = self.cut(at)?;
        self.backwards("no > ?1", cut, |event| {
            walk.undo(&event);
            true
        })?;
        let mut search = Search::of(&walk);
        if !search.is_over() {
            self.backwards("no <= ?1", cut, |event| {
                search.look(&mut walk, &event);
                !search.is_over()
            })?;
            if self.horizon()?.is_none() {
                // Everything was looked at: of whom nothing was said, had none.
                walk.forgotten = false;
            }
        }
        Ok(walk.past())
    }

    /// Goes through events of users and accounts, the newest first, for as long as more are wanted.
    fn backwards(&self, which: &str, cut: i64, mut wants_more: impl FnMut(EventView) -> bool) -> Sql<()> {
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT at, run, kind, user_id, email, before, after, reason FROM events WHERE {which}
               AND kind NOT IN ('account_refused', 'removal_held', 'removal_approved', 'removal_dropped', 'record_unreadable')
             ORDER BY no DESC"
        ))?;
        let mut rows = statement.query([cut])?;
        while let Some(row) = rows.next()? {
            if !wants_more(read_event(&self.name, row)?) {
                break;
            }
        }
        Ok(())
    }
}

/// A user on the way back: the fields that are known.
#[derive(Default)]
struct Person {
    present: bool,
    fields: Map<String, Value>,
}

/// An account on the way back. `None` is what is not known; of a directory user, the inner one is nobody.
#[derive(Clone, Default)]
struct Account {
    id: Option<String>,
    origin: Option<Origin>,
    directory_user: Option<Option<String>>,
}

impl Account {
    fn is_whole(&self) -> bool {
        self.id.is_some() && self.origin.is_some() && self.directory_user.is_some()
    }

    /// What one side of an event says of an account.
    fn said(side: Option<&Value>) -> Self {
        let field = |name: &str| side.and_then(|side| side.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            id: text("account_id"),
            origin: field("origin").and_then(Value::as_str).and_then(Origin::parse),
            directory_user: field("directory_user_id").map(|_| text("directory_user_id")),
        }
    }

    /// What an event says of the account that it was about when it was made or found.
    fn begun(event: &EventView) -> Self {
        let said = Self::said(event.after.as_ref());
        let origin = match event.kind {
            EventKind::AccountCreated => Origin::Created,
            _ => Origin::Found,
        };
        Self {
            origin: said.origin.or(Some(origin)),
            ..said
        }
    }

    /// Takes over what is not known yet, unless it is about another account.
    fn fill(&mut self, older: Self) {
        if self.id.is_some() && older.id.is_some() && self.id != older.id {
            return;
        }
        self.id = self.id.take().or(older.id);
        self.origin = self.origin.or(older.origin);
        self.directory_user = self.directory_user.take().or(older.directory_user);
    }
}

/// What is known on the way back.
struct Walk {
    people: HashMap<String, Person>,
    /// By e-mail; `None`: there was none. An e-mail that is missing here had none, either, unless `forgotten`.
    accounts: HashMap<EmailKey, Option<Account>>,
    /// All accounts were forgotten at a later moment, so that here is only what events said since.
    forgotten: bool,
}

impl Walk {
    fn from_present(db: &Connection) -> Sql<Self> {
        let mut people = HashMap::new();
        let mut statement = db.prepare_cached(
            "SELECT id, removed_at IS NULL, email, status, sso, role_id, created, last_login, first_seen FROM users",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut fields = Map::new();
            for (name, column) in FIELDS.into_iter().zip(2..) {
                let value = match name {
                    "sso" => row.get::<_, bool>(column)?.into(),
                    _ => row.get::<_, Option<String>>(column)?.into(),
                };
                fields.insert(name.to_owned(), value);
            }
            let present = row.get(1)?;
            people.insert(row.get(0)?, Person { present, fields });
        }
        let mut accounts = HashMap::new();
        let mut statement = db.prepare_cached(
            "SELECT email_key, account_id, origin, directory_user_id FROM accounts WHERE account_id IS NOT NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let account = Account {
                id: row.get(1)?,
                origin: row.get::<_, Option<String>>(2)?.as_deref().and_then(Origin::parse),
                directory_user: Some(row.get(3)?),
            };
            accounts.insert(EmailKey::fold(row.get_ref(0)?.as_str()?), Some(account));
        }
        Ok(Self {
            people,
            accounts,
            forgotten: false,
        })
    }

    /// Goes back over one event.
    fn undo(&mut self, event: &EventView) {
        match event.kind {
            EventKind::UserAppeared | EventKind::UserChanged | EventKind::UserDisappeared => self.undo_of_user(event),
            EventKind::StateChanged if forgets(event) => {
                self.accounts.clear();
                self.forgotten = true;
            }
            _ => self.undo_of_account(event),
        }
    }

    fn undo_of_user(&mut self, event: &EventView) {
        let Some(id) = event.user_id.clone() else { return };
        let person = self.people.entry(id).or_default();
        let before = event.before.as_ref().and_then(Value::as_object);
        match (event.kind, before) {
            (EventKind::UserDisappeared, _) => {
                person.present = true;
                if let Some(email) = &event.email {
                    person.fields.entry("email").or_insert(email.as_str().into());
                }
            }
            (EventKind::UserChanged, before) => overlay(&mut person.fields, before),
            // Whoever was there earlier still, was it with these fields, but for what the event says.
            (_, Some(before)) => {
                person.present = false;
                overlay(&mut person.fields, Some(before));
            }
            (_, None) => *person = Person::default(),
        }
    }

    fn undo_of_account(&mut self, event: &EventView) {
        let Some(key) = event.email.as_deref().map(EmailKey::fold) else {
            return;
        };
        let before = event.before.as_ref();
        match event.kind {
            EventKind::AccountCreated | EventKind::AccountFound => drop(self.accounts.insert(key, None)),
            EventKind::AccountDeleted | EventKind::AccountLost => {
                self.accounts.insert(key, Some(Account::said(before)));
            }
            EventKind::AccountAssociated => {
                let associated = Account::said(before).directory_user;
                match self.accounts.get_mut(&key) {
                    Some(Some(account)) => account.directory_user = associated,
                    Some(None) => {}
                    None if self.forgotten => {
                        let account = Account {
                            directory_user: associated,
                            ..Account::default()
                        };
                        self.accounts.insert(key, Some(account));
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn past(self) -> Past {
        let mut past = Past::default();
        let mut keyed = BTreeMap::new();
        for (id, person) in self.people.into_iter().filter(|(_, person)| person.present) {
            let text = |name: &str| person.fields.get(name).and_then(Value::as_str).map(str::to_owned);
            let key = EmailKey::fold(&text("email").unwrap_or_default());
            let account = match self.accounts.get(&key) {
                _ if key.is_empty() => Some(None),
                Some(known) => Some(known.clone()),
                None if self.forgotten => None,
                None => Some(None),
            };
            let whole = FIELDS.iter().all(|name| person.fields.contains_key(*name));
            let certain = account
                .as_ref()
                .is_some_and(|account| account.as_ref().is_none_or(Account::is_whole));
            past.unknown += u64::from(!whole || !certain);
            let user = PastUser {
                email: text("email"),
                status: text("status"),
                sso: person.fields.get("sso").and_then(Value::as_bool),
                role_id: text("role_id"),
                created: text("created"),
                last_login: text("last_login"),
                first_seen: instant(text("first_seen")),
                account: account.flatten().map(|account| PastAccount {
                    id: account.id,
                    origin: account.origin,
                    directory_user_id: account.directory_user.flatten(),
                }),
                id: id.clone(),
            };
            keyed.insert((key, id), user);
        }
        past.users = keyed.into_values().collect();
        past
    }
}

/// Whether everything that was known of JumpCloud was forgotten then: another organisation, region or application.
fn forgets(event: &EventView) -> bool {
    event
        .before
        .as_ref()
        .is_some_and(|before| before.get("accounts").is_some())
}

fn overlay(fields: &mut Map<String, Value>, before: Option<&Map<String, Value>>) {
    for (name, value) in before.into_iter().flatten() {
        fields.insert(name.clone(), value.clone());
    }
}

/// Looks further back for what the way back did not say.
struct Search {
    /// Users of whom something is not known.
    people: HashSet<String>,
    /// Accounts of which something is not known.
    accounts: HashSet<EmailKey>,
    /// Whatever events say of other accounts is to be taken over.
    anybody: bool,
}

impl Search {
    fn of(walk: &Walk) -> Self {
        let people = walk
            .people
            .iter()
            .filter(|(_, person)| person.present && FIELDS.iter().any(|name| !person.fields.contains_key(*name)));
        let accounts = walk.accounts.iter().filter(|(_, account)| {
            let unknown = |account: &Account| !account.is_whole();
            account.as_ref().is_some_and(unknown)
        });
        Self {
            people: people.map(|(id, _)| id.clone()).collect(),
            accounts: accounts.map(|(key, _)| key.clone()).collect(),
            anybody: walk.forgotten,
        }
    }

    fn is_over(&self) -> bool {
        self.people.is_empty() && self.accounts.is_empty() && !self.anybody
    }

    fn look(&mut self, walk: &mut Walk, event: &EventView) {
        match event.kind {
            EventKind::UserAppeared | EventKind::UserChanged => self.look_at_user(walk, event),
            EventKind::UserDisappeared => {}
            EventKind::StateChanged if forgets(event) => {
                // Nobody had one then of whom nothing was said since.
                self.anybody = false;
                self.accounts.clear();
                walk.forgotten = false;
            }
            _ => self.look_at_account(walk, event),
        }
    }

    fn look_at_user(&mut self, walk: &mut Walk, event: &EventView) {
        let Some(id) = event.user_id.as_ref().filter(|id| self.people.contains(*id)) else {
            return;
        };
        let Some(person) = walk.people.get_mut(id) else { return };
        for (name, value) in event.after.as_ref().and_then(Value::as_object).into_iter().flatten() {
            person.fields.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        if event.kind == EventKind::UserAppeared {
            let at = event.at.map(stored);
            person.fields.entry("first_seen").or_insert_with(|| at.into());
            self.people.remove(id);
        }
    }

    fn look_at_account(&mut self, walk: &mut Walk, event: &EventView) {
        let Some(key) = event.email.as_deref().map(EmailKey::fold) else {
            return;
        };
        if !self.anybody && !self.accounts.contains(&key) {
            return;
        }
        let begun = matches!(event.kind, EventKind::AccountCreated | EventKind::AccountFound);
        match walk.accounts.get_mut(&key) {
            // Said already by a later event, or known from the way back.
            Some(None) => {}
            Some(Some(account)) => {
                if begun {
                    account.fill(Account::begun(event));
                } else if event.kind == EventKind::AccountAssociated {
                    account.fill(Account::said(event.after.as_ref()));
                }
            }
            None if begun => drop(walk.accounts.insert(key.clone(), Some(Account::begun(event)))),
            None if event.kind == EventKind::AccountAssociated => {
                walk.accounts
                    .insert(key.clone(), Some(Account::said(event.after.as_ref())));
            }
            None => drop(walk.accounts.insert(key.clone(), None)),
        }
        if begun {
            self.accounts.remove(&key);
        }
    }
}
