//! The world behind the two APIs: who is there, what JumpCloud has, and how everything stands. All of it lives behind
//! one lock, so that a request takes effect at once or not at all.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::Options;
use super::behaviour::Behaviour;
use super::exchange::{Asked, Reply};
use super::fault::Faults;
use super::journal::{Journal, Peer};
use super::people::{Account, Application, DirectoryUser, Inventor, Person, falls_in, nanos};
use super::tokens::{Meter, TokenDesk};
use super::{jumpcloud, torq};

/// The catalogue entry under which people use Torq.
pub(super) const TORQ_APP: &str = "torq";

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) behaviour: Behaviour,
    pub(super) faults: Faults,
    pub(super) journal: Journal,

    pub(super) people: BTreeMap<String, Person>,
    pub(super) inventor: Inventor,
    pub(super) torq_tokens: TokenDesk,
    pub(super) torq_meter: Meter,
    pub(super) torq_rate: u32,
    /// Whether the key's role has `user.read`.
    pub(super) torq_scope: bool,
    pub(super) page_generation: u64,
    pub(super) fresh_tokens: u64,

    pub(super) directory: Directory,
    pub(super) applications: Vec<(Application, Accounts)>,
    pub(super) jumpcloud_tokens: TokenDesk,
    pub(super) jumpcloud_meter: Meter,
    pub(super) jumpcloud_rate: u32,
    pub(super) api_key: String,
    pub(super) org_id: Option<String>,
    directory_share: f64,
    ids: Ids,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        let seed = options.seed;
        let mut world = Self {
            seed,
            behaviour: options.behaviour.clone(),
            faults: Faults::new(seed),
            journal: Journal::default(),
            people: BTreeMap::new(),
            inventor: Inventor::new(seed, options.sso_share, options.mixed_case_share),
            torq_tokens: TokenDesk::new(
                options.torq_client_id.clone(),
                options.torq_client_secret.clone(),
                options.torq_token_lifetime,
                "Bearer",
                None,
                seed,
            ),
            torq_meter: Meter::default(),
            torq_rate: options.torq_rate,
            torq_scope: true,
            page_generation: 0,
            fresh_tokens: 0,
            directory: Directory::default(),
            applications: Vec::new(),
            // Lower case was seen, too.
            jumpcloud_tokens: TokenDesk::new(
                options.jumpcloud_client_id.clone(),
                options.jumpcloud_client_secret.clone(),
                options.jumpcloud_token_lifetime,
                "bearer",
                Some("api"),
                seed.wrapping_add(1),
            ),
            jumpcloud_meter: Meter::default(),
            jumpcloud_rate: options.jumpcloud_rate,
            api_key: options.jumpcloud_api_key.clone(),
            org_id: options.org_id.clone(),
            directory_share: options.directory_share,
            ids: Ids::new(seed),
        };
        world.populate(options);
        world
    }

    fn populate(&mut self, options: &Options) {
        let now = Timestamp::now();
        for number in 0..options.other_applications {
            self.create_application(&format!("other-{}", number + 1));
        }
        let exists = options
            .application_exists
            .unwrap_or(options.existing_share > 0.0 || options.anonymous_accounts > 0);
        if exists {
            self.create_application(TORQ_APP);
        }
        for number in 0..options.people {
            let hours = self.inventor.random().i64(48..24 * 700);
            let joined = now.checked_sub(SignedDuration::from_hours(hours)).unwrap_or(now);
            let person = self.arrive(joined);
            if exists && falls_in(number as u64, options.existing_share) {
                let user_id = self.directory.id_of(&person.email);
                self.add_account(Account {
                    email: Some(person.email),
                    user_id,
                    ..Account::default()
                });
            }
        }
        for _ in 0..if exists { options.anonymous_accounts } else { 0 } {
            self.add_account(Account::default());
        }
        for _ in 0..options.other_directory_users {
            let (name, email) = self.inventor.name();
            self.add_to_directory(&email, &name);
        }
    }

    /// Answers a request that no fault keeps away.
    pub(super) fn answer(&mut self, peer: Peer, asked: &Asked) -> Reply {
        match peer {
            Peer::Torq => torq::answer(self, asked),
            Peer::JumpCloud => jumpcloud::answer(self, asked),
        }
    }

    pub(super) fn tokens(&mut self, peer: Peer) -> &mut TokenDesk {
        match peer {
            Peer::Torq => &mut self.torq_tokens,
            Peer::JumpCloud => &mut self.jumpcloud_tokens,
        }
    }

    /// Somebody joins the workspace, and is in the directory as often as the share says.
    pub(super) fn arrive(&mut self, joined: Timestamp) -> Person {
        let in_directory = falls_in(self.inventor.number(), self.directory_share);
        let person = self.inventor.person(joined);
        if in_directory {
            self.add_to_directory(&person.email, &person.name);
        }
        self.people.insert(person.id.clone(), person.clone());
        person
    }

    /// The directory keeps e-mails in lower case, one user each.
    pub(super) fn add_to_directory(&mut self, email: &str, name: &str) -> String {
        if let Some(id) = self.directory.id_of(email) {
            return id;
        }
        let id = self.ids.next();
        self.directory.insert(DirectoryUser {
            id: id.clone(),
            email: email.to_lowercase(),
            name: name.to_owned(),
        });
        id
    }

    /// Accounts of a deleted directory user stay listed, without an owner.
    pub(super) fn remove_from_directory(&mut self, email: &str) {
        let Some(id) = self.directory.remove(email) else {
            return;
        };
        for (_, accounts) in &mut self.applications {
            accounts.disown(&id);
        }
    }

    pub(super) fn create_application(&mut self, catalog_app_id: &str) -> Application {
        let application = Application {
            id: self.ids.next(),
            catalog_app_id: catalog_app_id.to_owned(),
            status: "APPROVED".to_owned(),
            access_restriction: "NO_ACTION".to_owned(),
            discovered_at: nanos(Timestamp::now()),
            owner_user_id: None,
        };
        self.applications.push((application.clone(), Accounts::default()));
        application
    }

    pub(super) fn torq_accounts(&mut self) -> Option<&mut Accounts> {
        self.applications
            .iter_mut()
            .find(|(application, _)| application.catalog_app_id == TORQ_APP)
            .map(|(_, accounts)| accounts)
    }

    /// Adds an account to the Torq application, which is made where there is none. Returns its id.
    pub(super) fn add_account(&mut self, mut account: Account) -> String {
        if account.id.is_empty() {
            account.id = self.ids.next();
        }
        let id = account.id.clone();
        if self.torq_accounts().is_none() {
            self.create_application(TORQ_APP);
        }
        if let Some(accounts) = self.torq_accounts() {
            accounts.insert(account);
        }
        id
    }

    pub(super) fn next_id(&mut self) -> String {
        self.ids.next()
    }
}

/// The JumpCloud directory, in the order of ids.
#[derive(Debug, Default)]
pub(super) struct Directory {
    users: Vec<DirectoryUser>,
    by_email: HashMap<String, String>,
    /// Grows with every change. Lists without `sort=_id` lose and repeat rows by it.
    pub(super) changes: usize,
}

impl Directory {
    pub(super) fn users(&self) -> &[DirectoryUser] {
        &self.users
    }

    pub(super) fn id_of(&self, email: &str) -> Option<String> {
        self.by_email.get(&email.to_lowercase()).cloned()
    }

    pub(super) fn get(&self, id: &str) -> Option<&DirectoryUser> {
        let index = self.users.binary_search_by(|user| user.id.as_str().cmp(id));
        index.ok().and_then(|index| self.users.get(index))
    }

    fn insert(&mut self, user: DirectoryUser) {
        self.changes += 1;
        self.by_email.insert(user.email.clone(), user.id.clone());
        let index = self.users.partition_point(|other| other.id < user.id);
        self.users.insert(index, user);
    }

    fn remove(&mut self, email: &str) -> Option<String> {
        let id = self.by_email.remove(&email.to_lowercase())?;
        self.changes += 1;
        self.users.retain(|user| user.id != id);
        Some(id)
    }
}

/// The accounts of one application, in the order of ids.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    rows: Vec<Account>,
    /// How many accounts a folded e-mail has: one, unless duplicates are accepted.
    by_email: HashMap<String, usize>,
}

impl Accounts {
    pub(super) fn rows(&self) -> &[Account] {
        &self.rows
    }

    pub(super) fn has_email(&self, email: &str) -> bool {
        self.by_email.contains_key(&email.to_lowercase())
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.rows.binary_search_by(|account| account.id.as_str().cmp(id)).ok()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Account> {
        self.position(id).and_then(|index| self.rows.get(index))
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Account> {
        self.position(id).and_then(|index| self.rows.get_mut(index))
    }

    pub(super) fn insert(&mut self, account: Account) {
        if let Some(email) = &account.email {
            *self.by_email.entry(email.to_lowercase()).or_default() += 1;
        }
        let index = self.rows.partition_point(|other| other.id < account.id);
        self.rows.insert(index, account);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Account> {
        let account = self.rows.remove(self.position(id)?);
        if let Some(key) = account.email.as_ref().map(|email| email.to_lowercase())
            && let Some(count) = self.by_email.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                self.by_email.remove(&key);
            }
        }
        Some(account)
    }

    fn disown(&mut self, user_id: &str) {
        for account in &mut self.rows {
            if account.user_id.as_deref() == Some(user_id) {
                account.user_id = None;
            }
        }
    }
}

/// Ids like JumpCloud's: 24 hexadecimal digits that grow.
#[derive(Debug)]
struct Ids {
    prefix: String,
    next: u64,
}

impl Ids {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x1d5);
        Self {
            prefix: format!("66a1{:012x}", random.u64(..1 << 48)),
            next: 1,
        }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("{}{:08x}", self.prefix, self.next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_world_has_what_the_options_say() {
        let world = World::new(&Options {
            people: 100,
            existing_share: 0.5,
            anonymous_accounts: 3,
            other_directory_users: 7,
            other_applications: 4,
            ..Options::default()
        });
        assert_eq!(world.people.len(), 100);
        let sso = world.people.values().filter(|person| person.sso_provision);
        assert_eq!(sso.count(), 70);
        assert_eq!(world.directory.users().len(), 80 + 7);
        assert_eq!(world.applications.len(), 5);
        let mut world = world;
        let accounts = world.torq_accounts().unwrap();
        assert_eq!(accounts.rows().len(), 53);
        let ids = |account: &Account| account.id.len() == 24;
        assert!(accounts.rows().iter().all(ids));
        assert!(accounts.rows().is_sorted_by_key(|account| &account.id));
    }

    #[test]
    fn an_application_is_there_only_when_something_is_in_it() {
        let exists = |options: Options| World::new(&options).torq_accounts().is_some();
        assert!(!exists(Options::default()));
        let accounts = Options {
            anonymous_accounts: 1,
            ..Options::default()
        };
        assert!(exists(accounts));
        let empty = Options {
            application_exists: Some(true),
            ..Options::default()
        };
        assert!(exists(empty));
    }
}
