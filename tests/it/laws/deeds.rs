//! What others do to the two sides, and how the peers are disposed.

use serde_json::json;
use torq_connector::sandbox::{Account, Behaviour, Peer as Side, Person, WorldHandle, roles};

use super::history::{Change, Mail, Mood};
use super::model::{By, Made, View};
use super::trial::{Trial, options, person};
use crate::world::{fold, key_of};

impl Trial {
    fn who(&self, n: usize) -> Option<Person> {
        let people = self.workspace().people();
        people.get(n % people.len().max(1)).cloned()
    }

    fn update(&mut self, n: usize, change: impl FnOnce(&mut Person)) {
        if let Some(person) = self.who(n) {
            self.workspace().update_person(&person.id, change);
        }
    }

    pub fn change(&mut self, change: &Change) {
        self.note_accounts();
        let (workspace, organisation) = (self.workspace(), self.organisation());
        let town = self.town();
        match change {
            Change::Arrive(mail, sso) => {
                self.arrivals += 1;
                let number = self.arrivals;
                let email = match mail {
                    Mail::Own => format!("p{number}@example.com"),
                    Mail::Foreign => format!("p{number}@foreign.example"),
                    Mail::Of(n) => self.who(*n).map(|other| other.email).unwrap_or_default(),
                    Mail::None => String::new(),
                };
                workspace.add_person(person(town + 1, number, email, *sso));
            }
            Change::Leave(n) => {
                if let Some(person) = self.who(*n) {
                    self.gone[town].extend(workspace.remove_person(&person.id));
                }
            }
            Change::Return(n) => {
                if !self.gone[town].is_empty() {
                    let n = n % self.gone[town].len();
                    workspace.add_person(self.gone[town].swap_remove(n));
                }
            }
            Change::Rename(n) => {
                let step = self.past.step;
                self.update(*n, |one| one.email = format!("renamed{step}@example.com"));
            }
            Change::Swap(n, m) => {
                if let (Some(one), Some(other)) = (self.who(*n), self.who(*m)) {
                    workspace.update_person(&one.id, |person| person.email = other.email.clone());
                    workspace.update_person(&other.id, |person| person.email = one.email.clone());
                }
            }
            Change::Recase(n) => self.update(*n, |one| {
                let upper = one.email.to_uppercase();
                one.email = if one.email == upper {
                    one.email.to_lowercase()
                } else {
                    upper
                };
            }),
            Change::Share(n, m) => {
                if let Some(other) = self.who(*m) {
                    self.update(*n, |one| one.email = other.email.to_uppercase());
                }
            }
            Change::Blank(n) => self.update(*n, |one| one.email.clear()),
            Change::Relist(n) => self.update(*n, |one| one.sso_provision = !one.sso_provision),
            Change::Restate(n) => self.update(*n, |one| {
                let verified = one.status == "VERIFIED";
                one.status = if verified { "SUSPENDED" } else { "VERIFIED" }.to_owned();
            }),
            Change::Recast(n) => self.update(*n, |one| {
                let next = roles().iter().position(|role| role.id == one.role_id).unwrap_or(0) + 1;
                one.role_id = roles()[next % roles().len()].id.to_owned();
            }),
            Change::LogIn(n) => {
                let step = self.past.step;
                self.update(*n, |one| {
                    one.last_login_time = Some(format!("2026-01-01T00:00:00.{step:09}Z"))
                });
            }
            Change::Garble(n, all) => {
                let all = *all;
                self.update(*n, |one| {
                    one.raw = Some(if all {
                        json!({"email": one.email, "id": 7})
                    } else {
                        json!({"id": one.id, "email": ["what"], "status": {}, "role_id": one.role_id})
                    });
                });
            }
            Change::Heal => {
                for person in workspace.people() {
                    workspace.update_person(&person.id, |one| one.raw = None);
                }
            }
            Change::Exodus => {
                for person in workspace.people() {
                    self.gone[town].extend(workspace.remove_person(&person.id));
                }
            }
            Change::MakeAccount(n) => {
                if let Some(person) = self.who(*n).filter(|one| !one.email.is_empty()) {
                    self.make_account(&person.email.to_lowercase());
                }
            }
            Change::MakeOutsider(n) => self.make_account(&format!("outsider{n}@example.net")),
            Change::DeleteAccount(n) => {
                self.unnoticed = true;
                let accounts = organisation.accounts();
                if let Some(account) = accounts.get(n % accounts.len().max(1)) {
                    organisation.delete_account(&account.id);
                }
            }
            Change::Associate(n, m) => {
                self.unnoticed = true;
                let (accounts, users) = (organisation.accounts(), organisation.directory());
                let user = users.get(m % users.len().max(1));
                if let (Some(account), Some(user)) = (accounts.get(n % accounts.len().max(1)), user) {
                    organisation.delete_account(&account.id);
                    organisation.add_account(Account {
                        user_id: Some(user.id.clone()),
                        ..account.clone()
                    });
                }
            }
            Change::DeleteApplication => {
                self.unnoticed = true;
                organisation.delete_application();
            }
            Change::JoinDirectory(n) => {
                self.unnoticed = true;
                if let Some(person) = self.who(*n).filter(|one| !one.email.is_empty()) {
                    organisation.add_to_directory(&person.email);
                }
            }
            Change::LeaveDirectory(n) => {
                self.unnoticed = true;
                if let Some(person) = self.who(*n) {
                    organisation.remove_from_directory(&person.email);
                }
            }
            Change::RemakeDirectory(n) => {
                self.unnoticed = true;
                if let Some(person) = self.who(*n).filter(|one| !one.email.is_empty()) {
                    organisation.remove_from_directory(&person.email);
                    organisation.add_to_directory(&person.email);
                }
            }
            Change::ExpireTokens(Side::Torq) => workspace.expire_tokens(Side::Torq),
            Change::ExpireTokens(Side::JumpCloud) => organisation.expire_tokens(Side::JumpCloud),
            Change::ForgetTokens(Side::Torq) => workspace.forget_tokens(Side::Torq),
            Change::ForgetTokens(Side::JumpCloud) => organisation.forget_tokens(Side::JumpCloud),
            Change::StalePages => workspace.expire_page_tokens(),
        }
        self.past.goes_on(&View::of(&self.workspace().people()));
    }

    /// Somebody else makes an account, where there is none with this e-mail.
    fn make_account(&mut self, email: &str) {
        let organisation = self.organisation();
        if organisation
            .accounts()
            .iter()
            .any(|one| key_of(one).as_deref() == Some(email))
        {
            return;
        }
        self.unnoticed = true;
        let id = organisation.add_account(Account {
            email: Some(email.to_owned()),
            ..Account::default()
        });
        let place = self.settings.organisation;
        let application = organisation.application().map(|one| one.id).unwrap_or_default();
        let intent = (place, application, email.to_owned());
        // Or one that was about to be sent when its process was killed: nobody but the state knows of that.
        let dark = self.under_way || self.past.unanswered.contains(&intent) || self.past.killed && self.intends(email);
        let made = Made {
            email: Some(email.to_owned()),
            by: if dark { By::OthersInTheDark } else { By::Others },
            step: self.past.step,
        };
        self.past.made.insert((place, id), made);
    }

    pub fn mood(&mut self, mood: &Mood) {
        let refused = match mood {
            Mood::Refuse(n) | Mood::Fail(n) => self.who(*n).map(|one| fold(&one.email)),
            _ => None,
        };
        if let Some(email) = &refused {
            self.refused.push(email.clone());
        }
        if matches!(mood, Mood::Well) {
            self.moody = false;
            self.refused.clear();
            for world in self.worlds() {
                let duplicates = {
                    let mut duplicates = false;
                    world.behave(|behaviour| duplicates = behaviour.accept_duplicates);
                    duplicates
                };
                world.behave(|behaviour| {
                    *behaviour = Behaviour {
                        accept_duplicates: duplicates,
                        ..options(0).behaviour
                    }
                });
                world.restore_torq_key();
                world.restore_jumpcloud_key();
                world.set_torq_scope(true);
            }
            return;
        }
        let (workspace, organisation) = (self.workspace(), self.organisation());
        match mood {
            Mood::AcceptDuplicates(yes) => organisation.behave(|one| one.accept_duplicates = *yes),
            Mood::Shapes(applications, accounts) => organisation.behave(|one| {
                one.applications_shape = *applications;
                one.accounts_shape = *accounts;
            }),
            Mood::Caps(list, directory) => organisation.behave(|one| {
                one.list_cap = *list;
                one.directory_cap = *directory;
            }),
            Mood::Skip(yes) => organisation.behave(|one| one.skip_instead_of_offset = *yes),
            Mood::Count(count) => organisation.behave(|one| one.total_count = *count),
            Mood::CreateStatus(status) => organisation.behave(|one| one.create_status = *status),
            Mood::DeleteReturnsObject(yes) => organisation.behave(|one| one.delete_returns_object = *yes),
            Mood::SearchCap(cap) => organisation.behave(|one| one.search_batch_cap = *cap),
            Mood::Pages {
                cap,
                empty,
                trailing,
                defaults,
                camel,
            } => workspace.behave(|one| {
                one.torq_page_cap = *cap;
                one.empty_pages = *empty;
                one.trailing_page_token = *trailing;
                one.emit_defaults = *defaults;
                one.torq_camel_case = *camel;
            }),
            Mood::StaleStatus(status) => workspace.behave(|one| one.stale_token_status = *status),
            Mood::IgnoreFilter(yes) => workspace.behave(|one| one.ignore_sso_filter = *yes),
            Mood::Refuse(_) => organisation.behave(|one| one.refused_emails.extend(refused)),
            Mood::Fail(_) => organisation.behave(|one| one.failing_emails.extend(refused)),
            _ => self.ill(mood, &workspace, &organisation),
        }
    }

    /// Moods in which no run can be expected to succeed.
    fn ill(&mut self, mood: &Mood, workspace: &WorldHandle, organisation: &WorldHandle) {
        self.moody = true;
        match mood {
            Mood::Tokens(tokens) => workspace.behave(|one| one.page_tokens = *tokens),
            Mood::Licence(licence) => organisation.behave(|one| one.licence = *licence),
            Mood::NoCreates(status) => organisation.behave(|one| one.account_create_refused = *status),
            Mood::NoAssociations(status) => organisation.behave(|one| one.account_associate_refused = *status),
            Mood::Forbidden(yes) => organisation.behave(|one| one.jumpcloud_forbidden = *yes),
            Mood::Revoke(Side::Torq) => workspace.revoke_torq_key(),
            Mood::Revoke(Side::JumpCloud) => organisation.revoke_jumpcloud_key(),
            Mood::Scope(granted) => workspace.set_torq_scope(*granted),
            _ => {}
        }
    }
}
