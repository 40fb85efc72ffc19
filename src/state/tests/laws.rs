//! Removals against a model that can be believed by reading: people come, go, return, change and share e-mails; polls are cut
//! short, unclean or empty; days go by; a person approves, changes rules, filters, keys and organisations. After every step the
//! state says what the model says: who is there, who is removed, who is held, and which accounts are to be deleted.

mod model;

use proptest::test_runner::FileFailurePersistence;

use super::*;
use crate::jumpcloud::Account;
use crate::model::{ApplicationId, DirectoryUserId};
use model::{Doubt, Fate, Known, Model, Verdict};

/// E-mails of the model, by number; so few that people share them and take each other's.
pub(super) const EMAILS: u8 = 6;
const PEOPLE: u8 = 8;

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Somebody joins, or is given another e-mail.
    Join(u8, u8),
    Leave(u8),
    /// Two people exchange their e-mails.
    Swap(u8, u8),
    /// Everybody leaves.
    Empty,
    /// Everybody is somebody else: another workspace behind the same key.
    Strangers,
    /// A poll from its first page to its last.
    Poll(Manner),
    /// Bring JumpCloud to what the snapshot says.
    Deliver,
    Approve,
    Retry,
    /// Hours go by.
    Wait(u8),
    Removals(bool),
    Max(u8),
    /// Leave out these e-mails.
    Filter(BTreeSet<u8>),
    /// Another Torq key, and whether a poll is under way then.
    TorqSide(u8, bool),
    JumpCloudSide(u8),
    /// Somebody else makes an account.
    Stranger(u8),
    /// The process ends; the next one has the file and no memory.
    Restart,
}

/// How a poll goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    Clean,
    /// A record had no readable id.
    Unclean,
    /// Cut short and resumed by another process.
    Resumed,
    /// Cut short, and given up.
    GivenUp,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let who = || 0..PEOPLE;
    let email = || 0..EMAILS;
    let manner = prop_oneof![
        6 => Just(Manner::Clean),
        1 => Just(Manner::Unclean),
        2 => Just(Manner::Resumed),
        1 => Just(Manner::GivenUp),
    ];
    prop_oneof![
        4 => (who(), email()).prop_map(|(who, email)| Step::Join(who, email)),
        4 => who().prop_map(Step::Leave),
        1 => (who(), who()).prop_map(|(one, other)| Step::Swap(one, other)),
        1 => Just(Step::Empty),
        1 => Just(Step::Strangers),
        10 => manner.prop_map(Step::Poll),
        4 => Just(Step::Deliver),
        2 => Just(Step::Approve),
        1 => Just(Step::Retry),
        1 => (1..30_u8).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Removals),
        1 => (0..4_u8).prop_map(Step::Max),
        1 => proptest::collection::btree_set(email(), 0..3).prop_map(Step::Filter),
        1 => (0..3_u8, any::<bool>()).prop_map(|(side, under_way)| Step::TorqSide(side, under_way)),
        1 => (0..2_u8).prop_map(Step::JumpCloudSide),
        1 => email().prop_map(Step::Stranger),
        1 => Just(Step::Restart),
    ]
}

/// JumpCloud, as far as this needs it: two organisations, and in each the accounts by e-mail, with who made them.
#[derive(Default)]
struct Organisation {
    accounts: BTreeMap<u8, (String, bool)>,
}

/// The state, the model, and the world that both are told of.
pub(super) struct Trial {
    pub(super) store: Store,
    model: Model,
    pub(super) now: Timestamp,
    people: BTreeMap<u8, u8>,
    /// What Torq says of people besides their e-mails.
    pub(super) mood: u8,
    newcomers: u8,
    filtered: BTreeSet<u8>,
    torq_side: u8,
    /// Whether a poll was begun that is not ended.
    under_way: bool,
    jumpcloud_side: u8,
    organisations: [Organisation; 2],
    ids: u32,
}

fn email(number: u8) -> String {
    format!("Mail{number}@example.com")
}

fn key(number: u8) -> EmailKey {
    EmailKey::fold(&email(number))
}

fn number(key: &EmailKey) -> u8 {
    let digits = key.as_str().trim_start_matches("mail").split('@').next();
    digits.unwrap().parse().unwrap()
}

impl Trial {
    pub(super) fn new() -> Self {
        let mut trial = Self {
            store: store(),
            model: Model::new(),
            now: "2026-01-05T00:00:00Z".parse().unwrap(),
            people: BTreeMap::new(),
            mood: 0,
            newcomers: PEOPLE,
            filtered: BTreeSet::new(),
            torq_side: 0,
            under_way: false,
            jumpcloud_side: 0,
            organisations: Default::default(),
            ids: 0,
        };
        trial.reconcile();
        trial
    }

    fn filter(&self) -> UserFilter {
        UserFilter {
            exclude_emails: self.filtered.iter().map(|number| key(*number).to_string()).collect(),
            ..UserFilter::default()
        }
    }

    fn rules(&self) -> RemovalRules {
        RemovalRules {
            removals: if self.model.delete {
                Removals::Delete
            } else {
                Removals::Report
            },
            max: MaxRemovals::Users(self.model.max),
        }
    }

    /// What a run begins with.
    fn reconcile(&mut self) {
        let sides = Sides {
            torq: self.torq_side.to_string(),
            jumpcloud: self.jumpcloud_side.to_string(),
        };
        self.store.reconcile_sides(self.now, &sides).unwrap();
    }

    /// The e-mail as Torq writes it just now.
    fn spelt(&self, number: u8) -> String {
        match self.mood % 4 {
            3 => email(number).to_uppercase(),
            _ => email(number),
        }
    }

    fn page_of(&self, listing: Listing, odd: bool) -> UsersPage {
        let here = self
            .people
            .iter()
            .filter(|(id, _)| (**id % 2 == 0) == (listing == Listing::Sso));
        let users: Vec<User> = here
            .map(|(id, number)| User {
                id: format!("u{id}"),
                email: self.spelt(*number),
                status: format!("STATUS{}", self.mood),
                sso: self.mood % 3 == 1,
                role_id: format!("role{}", (self.mood + id) % 3),
                created: (self.mood > 1).then(|| "2026-01-01T00:00:00Z".to_owned()),
                last_login: (id % 2 == 1).then(|| format!("2026-01-0{}T00:00:00Z", self.mood % 9 + 1)),
                ..User::default()
            })
            .collect();
        let mut page = page(&users, None);
        if odd {
            page.unreadable.push(crate::torq::Unreadable {
                id: None,
                reason: "a record has no id".to_owned(),
            });
        }
        page
    }

    fn apply(&mut self, listing: Listing, odd: bool) {
        let (page, filter) = (self.page_of(listing, odd), self.filter());
        self.store.apply_page(self.now, listing, &page, &filter).unwrap();
    }

    fn poll(&mut self, manner: Manner) {
        self.tick(1);
        self.reconcile();
        let filter = self.filter();
        self.store.begin_poll(self.now, &filter).unwrap();
        self.apply(Listing::Sso, matches!(manner, Manner::Unclean));
        match manner {
            Manner::Clean | Manner::Unclean => {}
            Manner::Resumed => {
                self.store.poll = None;
                self.tick(1);
                let (cursors, _) = self.store.begin_poll(self.now, &filter).unwrap();
                assert!(cursors[0].done && !cursors[1].done);
            }
            Manner::GivenUp => {
                self.store.abandon_poll().unwrap();
                self.under_way = false;
                let seen = self.people.iter().filter(|(id, _)| *id % 2 == 0);
                self.model.glimpsed(&seen.map(|(id, email)| (*id, *email)).collect());
                return;
            }
        }
        self.apply(Listing::Local, false);
        let rules = self.rules();
        self.store.finish_poll(self.now, &rules).unwrap();
        self.under_way = false;
        let clean = !matches!(manner, Manner::Unclean);
        let people = self.people.clone();
        self.model.polled(self.now, &people, clean);
    }

    pub(super) fn tick(&mut self, minutes: i64) {
        self.now += jiff::SignedDuration::from_mins(minutes);
    }

    fn account(&self, number: u8, id: &str) -> Account {
        super::account(id, &email(number))
    }

    /// What a delivery does, in one breath: look, create, delete.
    fn deliver(&mut self) {
        self.reconcile();
        let side = usize::from(self.jumpcloud_side);
        self.store
            .note_application(
                self.now,
                &ApplicationId::new(format!("application{side}")),
                Origin::Found,
            )
            .unwrap();
        let list: Vec<Account> = self.organisations[side]
            .accounts
            .iter()
            .map(|(number, (id, _))| self.account(*number, id))
            .collect();
        self.store.adopt(self.now, &list).unwrap();
        self.store.finish_adoption(self.now).unwrap();
        let carriers = self.model.members.values().filter(|one| !one.removed);
        let absences: Vec<(u8, u32)> = carriers.map(|one| (one.email, one.absent)).collect();
        let absent = |number: u8| {
            let carriers = absences.iter().filter(|(email, _)| *email == number);
            carriers.map(|(_, absent)| *absent).min()
        };
        for (number, (_, ours)) in &self.organisations[side].accounts {
            // An account of nobody in Torq is none of our business, unless it is known already.
            if let Some(absent) = absent(*number) {
                let known = Known {
                    ours: *ours,
                    absent,
                    fate: Fate::Kept,
                };
                self.model.accounts.entry(*number).or_insert(known);
            }
        }
        for row in self.store.to_create(&EmailKey::fold(""), 99).unwrap() {
            let number = number(&row.key);
            self.ids += 1;
            let id = format!("a{}", self.ids);
            self.store.creating(self.now, &row.key, self.now).unwrap();
            self.store.created(self.now, &row, &self.account(number, &id)).unwrap();
            let before = self.organisations[side].accounts.insert(number, (id, true));
            assert_eq!(before, None, "{number} has an account already");
            let absent = absent(number).expect("an account is made for a user");
            self.model.accounts.insert(
                number,
                Known {
                    ours: true,
                    absent,
                    fate: Fate::Kept,
                },
            );
        }
        for (number, known) in &self.model.accounts {
            assert!(
                self.organisations[side].accounts.contains_key(number),
                "{number}: {known:?}"
            );
        }
        for member in self.model.members.values() {
            // Whom the last poll did not see may just have left: nothing is made for them before they are seen again.
            let there = !member.removed && member.absent == 0;
            let wanted = there && member.verdict == Verdict::None && !self.filtered.contains(&member.email);
            assert!(
                !wanted || self.organisations[side].accounts.contains_key(&member.email),
                "{member:?} is forgotten"
            );
        }
        if !self.model.delete {
            self.store.report_due().unwrap();
            for account in self.model.accounts.values_mut().filter(|one| one.fate == Fate::Due) {
                account.fate = Fate::Reported;
            }
            return;
        }
        for row in self.store.to_delete(&EmailKey::fold(""), 99).unwrap() {
            let (_, ours) = self.organisations[side].accounts.remove(&number(&row.key)).unwrap();
            assert!(ours, "{} is not ours", row.key);
            self.store.deleted(self.now, &row).unwrap();
            let known = self.model.accounts.remove(&number(&row.key)).unwrap();
            assert_eq!(known.fate, Fate::Due, "{}", row.key);
        }
    }

    /// Somebody else deletes an account, and that is noticed.
    pub(super) fn lose(&mut self, number: u8) {
        let side = usize::from(self.jumpcloud_side);
        let Some((id, _)) = self.organisations[side].accounts.remove(&number) else {
            return;
        };
        if self.model.accounts.remove(&number).is_some() {
            let lost = Unresolved {
                key: key(number),
                account: AccountId::new(id),
            };
            self.store.account_lost(self.now, &lost, Lost::Gone).unwrap();
        }
    }

    /// The directory is asked, and who is found there is associated. The next delivery finds somebody else to have undone that.
    pub(super) fn associate(&mut self, number: u8, directory_user: u8) {
        let id = DirectoryUserId::new(format!("d{directory_user}"));
        self.store.matched(self.now, &[(key(number), Some(id))]).unwrap();
        for row in self.store.to_associate(&EmailKey::fold(""), 99).unwrap() {
            self.store.associated(self.now, &row).unwrap();
        }
    }

    pub(super) fn happen(&mut self, step: &Step) {
        match step {
            Step::Join(id, number) => drop(self.people.insert(*id, *number)),
            Step::Leave(id) => drop(self.people.remove(id)),
            Step::Swap(one, other) => {
                if let (Some(first), Some(second)) = (self.people.get(one).copied(), self.people.get(other).copied()) {
                    self.people.insert(*one, second);
                    self.people.insert(*other, first);
                }
            }
            Step::Empty => self.people.clear(),
            Step::Strangers => {
                let people = std::mem::take(&mut self.people);
                for number in people.into_values() {
                    self.newcomers += 1;
                    self.people.insert(self.newcomers, number);
                }
            }
            Step::Poll(manner) => self.poll(*manner),
            Step::Deliver => self.deliver(),
            Step::Approve => {
                let approved = self.store.approve(self.now).unwrap();
                assert_eq!(approved, self.model.approved(), "approved");
            }
            Step::Retry => drop(self.store.retry().unwrap()),
            Step::Wait(hours) => self.tick(i64::from(*hours) * 60),
            Step::Removals(delete) => self.model.delete = *delete,
            Step::Max(max) => self.model.max = u64::from(*max),
            Step::Filter(filtered) => {
                self.filtered = filtered.clone();
                // As the next poll would.
                let filter = self.filter();
                self.store.apply_filter(self.now, &filter).unwrap();
            }
            Step::TorqSide(side, under_way) => {
                if *under_way {
                    let filter = self.filter();
                    self.store.begin_poll(self.now, &filter).unwrap();
                    self.under_way = true;
                }
                if *side != self.torq_side {
                    self.torq_side = *side;
                    self.model.doubt = Doubt::Side(if self.under_way { 2 } else { 1 });
                }
                self.reconcile();
            }
            Step::JumpCloudSide(side) => {
                if *side != self.jumpcloud_side {
                    self.jumpcloud_side = *side;
                    self.model.accounts.clear();
                }
                self.reconcile();
            }
            Step::Stranger(number) => {
                let accounts = &mut self.organisations[usize::from(self.jumpcloud_side)].accounts;
                self.ids += 1;
                accounts
                    .entry(*number)
                    .or_insert_with(|| (format!("s{}", self.ids), false));
            }
            Step::Restart => {
                self.store.poll = None;
                self.store.counted = None;
                self.store.settled = Settled::default();
            }
        }
    }

    /// The state says what the model says.
    fn agree(&mut self) -> Result<(), TestCaseError> {
        let shown: BTreeMap<String, AccountStanding> = self
            .store
            .users()
            .unwrap()
            .into_iter()
            .map(|user| (user.id, user.account))
            .collect();
        let there = self.model.members.iter().filter(|(_, one)| !one.removed);
        let expected: BTreeMap<String, AccountStanding> = there
            .map(|(id, one)| {
                let account = self.model.accounts.get(&one.email);
                let standing = match (one.verdict, account) {
                    (Verdict::Held, _) => AccountStanding::Held,
                    _ if self.filtered.contains(&one.email) => AccountStanding::Filtered,
                    (_, Some(Known { ours: true, .. })) => AccountStanding::Created,
                    (_, Some(_)) => AccountStanding::Found,
                    (_, None) => AccountStanding::Pending,
                };
                (format!("u{id}"), standing)
            })
            .collect();
        prop_assert_eq!(shown, expected);
        let due: BTreeSet<u8> = self
            .store
            .to_delete(&EmailKey::fold(""), 99)
            .unwrap()
            .iter()
            .map(|row| number(&row.key))
            .collect();
        let accounts = self.model.accounts.iter();
        let expected: BTreeSet<u8> = accounts
            // Pages of a poll that was given up may have shown somebody who has the e-mail by now.
            .filter(|(number, one)| one.fate == Fate::Due && !self.model.carried(**number))
            .map(|(number, _)| *number)
            .collect();
        prop_assert_eq!(due, expected, "accounts to be deleted");
        let status = self.store.status().unwrap();
        prop_assert_eq!(status.held, self.model.held());
        let removed = self.model.members.values().filter(|one| one.removed).count() as u64;
        prop_assert_eq!(status.removed, removed);
        Ok(())
    }
}

pub(super) fn cases(fallback: u32) -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("LAWS_CASES")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(fallback),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/state/tests/laws.regressions"
        )))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_state_removes_holds_and_releases_as_the_model_does(history in proptest::collection::vec(step(), 1..60)) {
        let mut trial = Trial::new();
        for step in &history {
            trial.happen(step);
            trial.agree()?;
        }
    }
}
