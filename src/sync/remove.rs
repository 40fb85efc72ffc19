//! Taking a connector down: what it made in JumpCloud is shown first, and deleted when a person says so. What was there before it
//! came stays as it is, also where it was associated with a person of the directory: that says whose account it is, which is as
//! true without the connector.
//!
//! ```text
//! plan:    application ─▶ its list ─▶ which of it is ours, which of that another connector needs
//! remove:  noted in the state ─▶ the list again ─▶ accounts of ours ─▶ the application, if it is ours and empty
//! ```
//!
//! Whether the state goes, too, is decided by whoever asked ([`Removal::is_complete`]).

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::deliver::{Delivery, Trouble, words};
use super::neighbours::{Neighbourhood, Shared};
use super::{Connector, Halt, application};
use crate::http::{Failure, FailureKind};
use crate::model::{AccountId, ApplicationId, ConnectorName, EmailKey, Peer};
use crate::state::{About, Origin, StateError};
use crate::view::ConnectorState;
use crate::wording;

/// How often the application's deletion is tried while its answers are lost.
const MAX_ATTEMPTS: u32 = 5;

/// What a removal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalTerms {
    /// Nothing in JumpCloud is touched, or even asked; only the state goes. Whoever says so need not ask the connector at all.
    pub keep_accounts: bool,
    /// The application stays, whatever is found: so it was shown.
    pub keep_application: bool,
}

/// What a removal would take away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalPlan {
    /// Accounts that this connector created and that go.
    pub accounts: u64,
    /// Accounts that it created and that stay, because other connectors have users with their e-mails.
    pub needed: u64,
    /// The other connectors that deliver to the same application.
    pub neighbours: Vec<String>,
    /// The other accounts of the application, which stay.
    pub others: u64,
    /// Those of them that this connector created, for somebody who was forgotten since, or who left while it delivered elsewhere.
    #[serde(default)]
    pub forgotten: u64,
    /// What becomes of the application.
    pub application: ApplicationFate,
}

/// What becomes of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationFate {
    /// There is none, or none any more.
    Absent,
    /// It goes: this connector made it, and nothing else is in it.
    Goes(ApplicationId),
    /// It stays; why.
    Stays(ApplicationId, String),
}

/// How a removal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalOutcome {
    /// Everything that was to go is gone.
    Done,
    /// Something that was to go could not be deleted.
    Partial,
    /// JumpCloud is unreachable or fails.
    Failed,
    /// Credentials, permission or licence are refused.
    Refused,
    /// The configuration does not fit what is to be removed.
    Misfit,
}

/// Why something could not be planned or done, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// What kind of an end that is.
    pub outcome: RemovalOutcome,
    /// Why.
    pub reason: String,
    /// What a person should do.
    pub action: String,
}

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Accounts that were deleted.
    pub deleted: u64,
    /// Accounts of this connector that stay because others need them.
    pub needed: u64,
    /// What became of the application; `None` where that was not come to.
    pub application: Option<ApplicationFate>,
    /// What kept it from its end.
    pub obstacle: Option<Obstacle>,
}

impl Removal {
    /// Of a connector whose accounts stay as they are.
    pub fn untouched() -> Self {
        Self {
            deleted: 0,
            needed: 0,
            application: None,
            obstacle: None,
        }
    }

    /// Whether nothing is left to do, so that the state may go.
    pub fn is_complete(&self) -> bool {
        self.obstacle.is_none()
    }

    /// How it ended.
    pub fn outcome(&self) -> RemovalOutcome {
        self.obstacle
            .as_ref()
            .map_or(RemovalOutcome::Done, |obstacle| obstacle.outcome)
    }
}

pub(super) fn or_keep(name: &ConnectorName) -> String {
    format!("or leave JumpCloud as it is: torq-connector remove {name} --keep-accounts")
}

fn repeat(name: &ConnectorName) -> String {
    format!("torq-connector remove {name}")
}

/// Why a removal does not go on.
enum Stop {
    Halt(Halt),
    Obstacle(Obstacle),
}

impl<E: Into<Halt>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Halt(error.into())
    }
}

impl Connector {
    /// Looks what a removal would take away. Reads JumpCloud, and writes nothing anywhere.
    ///
    /// # Errors
    /// Only when the state cannot be read.
    pub async fn plan_removal(
        &self,
        neighbourhood: &Neighbourhood,
    ) -> Result<Result<RemovalPlan, Obstacle>, StateError> {
        match self.look_what_is_ours(neighbourhood).await {
            Ok(plan) => Ok(Ok(plan)),
            Err(stop) => Ok(Err(self.obstacle(stop)?)),
        }
    }

    async fn look_what_is_ours(&self, neighbourhood: &Neighbourhood) -> Result<RemovalPlan, Stop> {
        let about = self.fitting().await?;
        let absent = RemovalPlan {
            accounts: 0,
            needed: 0,
            neighbours: Vec::new(),
            others: 0,
            forgotten: 0,
            application: ApplicationFate::Absent,
        };
        let Some((application, origin)) = self.application_of(&about).await? else {
            return Ok(absent);
        };
        // By their ids, and as long as they are still of that e-mail: one that somebody gave another e-mail is somebody else's now. And
        // page by page by their e-mails, for a run may be making accounts just now.
        let created = self.state.call(|store| store.ours()).await?;
        let mut created: HashMap<AccountId, EmailKey> = created.into_iter().collect();
        let mut pages = self.jumpcloud.accounts(&application);
        let (mut ours, mut rows, mut forgotten) = (Vec::new(), 0, 0);
        loop {
            let mut page = match pages.next().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(failure) if failure.kind == FailureKind::NotFound => return Ok(absent),
                Err(failure) => return Err(application::refusal(&self.jumpcloud, failure, false).await.into()),
            };
            self.go_on()?;
            rows += page.len() as u64;
            page.retain(|account| match created.remove(&account.id) {
                Some(key) if account.key().is_none() || account.is_of(&key) => {
                    ours.push(key);
                    false
                }
                _ => true,
            });
            let (more, gone) = self
                .state
                .call(move |store| Ok((store.ours_among(&page)?, store.forgotten_among(&page)?)))
                .await?;
            ours.extend(more);
            forgotten += gone;
        }
        // Also what could not be read is somebody's.
        let others = (rows + pages.unread().len() as u64).saturating_sub(ours.len() as u64);
        let all = ours.len() as u64;
        let shared = self.shared(neighbourhood, &application, ours).await?;
        let needed = shared.needed.len() as u64;
        let application = match why_it_stays(origin, &shared.names, others, forgotten) {
            Some(why) => ApplicationFate::Stays(application, why),
            None => ApplicationFate::Goes(application),
        };
        Ok(RemovalPlan {
            accounts: all - needed,
            needed,
            neighbours: shared.names,
            others,
            forgotten,
            application,
        })
    }

    /// Deletes what this connector made in JumpCloud. The state knows from the first moment on that the connector is being
    /// removed, so whatever cuts this short, it does not begin again by itself; repeated, it goes on.
    ///
    /// # Errors
    /// Only when the state cannot be read or written.
    pub async fn remove(&self, terms: RemovalTerms, neighbourhood: &Neighbourhood) -> Result<Removal, StateError> {
        self.state.call(|store| store.begin_removal(Timestamp::now())).await?;
        let mut removal = Removal::untouched();
        let taken = self.take_down(terms, neighbourhood, &mut removal).await;
        if let Err(stop) = taken {
            removal.obstacle = Some(self.obstacle(stop)?);
        }
        if let Some(Obstacle { reason, action, .. }) = removal.obstacle.clone() {
            tracing::error!(connector = %self.name(), deleted = removal.deleted, %action, "the removal did not come to its end: {reason}");
            let reason = format!("its removal did not come to its end: {reason}");
            let action = format!(
                "{action}; to set it up again instead: torq-connector reconnect {}",
                self.name()
            );
            self.state
                .call(move |store| {
                    store.note_state(Timestamp::now(), ConnectorState::Removed, Some(&reason), Some(&action))
                })
                .await?;
        } else {
            tracing::info!(connector = %self.name(), deleted = removal.deleted, "removed");
        }
        Ok(removal)
    }

    async fn take_down(
        &self,
        terms: RemovalTerms,
        neighbourhood: &Neighbourhood,
        removal: &mut Removal,
    ) -> Result<(), Stop> {
        let about = self.fitting().await?;
        let Some((application, origin)) = self.application_of(&about).await? else {
            removal.application = Some(ApplicationFate::Absent);
            return Ok(());
        };
        let delivery = Delivery::new(self, application.clone());
        let (names, needed) = match self.delete_ours(&delivery, neighbourhood, removal).await {
            Ok(shared) => (shared.names, shared.needed),
            Err(Gone::Application) => {
                removal.application = Some(ApplicationFate::Absent);
                return Ok(());
            }
            Err(Gone::Stop(stop)) => return Err(stop),
        };
        let remaining = {
            let needed = needed.clone();
            self.state.call(move |store| store.remaining(&needed)).await?
        };
        if remaining.unanswered > 0 {
            let (failure, answered) = delivery.unanswered_write().unzip();
            let words = failure.map_or_else(|| "JumpCloud did not answer".to_owned(), |failure| failure.to_string());
            let outcome = match answered {
                Some(true) => RemovalOutcome::Partial,
                _ => RemovalOutcome::Failed,
            };
            return Err(Stop::Obstacle(Obstacle {
                outcome,
                reason: format!(
                    "{} could not be deleted: {words}",
                    wording::counted(remaining.unanswered, "account")
                ),
                action: format!("later, again: {}", repeat(self.name())),
            }));
        }
        if remaining.refused > 0 {
            let words = remaining.words.unwrap_or_else(|| "JumpCloud refused it".to_owned());
            return Err(Stop::Obstacle(Obstacle {
                outcome: RemovalOutcome::Partial,
                reason: format!(
                    "{} could not be deleted: {words}",
                    wording::counted(remaining.refused, "account")
                ),
                action: format!(
                    "delete them in JumpCloud, and repeat: {}; {}",
                    repeat(self.name()),
                    or_keep(self.name())
                ),
            }));
        }
        let (others, forgotten) = match self.count_accounts(&application).await? {
            Some((listed, forgotten)) => (listed.saturating_sub(removal.needed), forgotten),
            None => {
                removal.application = Some(ApplicationFate::Absent);
                return Ok(());
            }
        };
        let why = match why_it_stays(origin, &names, others, forgotten) {
            None if terms.keep_application => Some("it was to stay when you were asked".to_owned()),
            why => why,
        };
        if let Some(why) = why {
            removal.application = Some(ApplicationFate::Stays(application, why));
            return Ok(());
        }
        self.delete_application(&application).await?;
        removal.application = Some(ApplicationFate::Goes(application));
        Ok(())
    }

    /// Reads the list, so that creates that were not answered are known for what they are, and deletes what is ours.
    async fn delete_ours(
        &self,
        delivery: &Delivery<'_>,
        neighbourhood: &Neighbourhood,
        removal: &mut Removal,
    ) -> Result<Shared, Gone> {
        delivery.adopt().await?;
        let ours = self.state.call(|store| store.ours()).await.map_err(Halt::from)?;
        let before = ours.len() as u64;
        let ours = ours.into_iter().map(|(_, key)| key).collect();
        let shared = self
            .shared(neighbourhood, &delivery.application, ours)
            .await
            .map_err(Gone::Stop)?;
        removal.needed = shared.needed.len() as u64;
        let needed = shared.needed.clone();
        self.state
            .call(move |store| store.release_ours(&needed))
            .await
            .map_err(Halt::from)?;
        let deleted = delivery.delete().await;
        let after = self.state.call(|store| store.ours()).await.map_err(Halt::from)?;
        removal.deleted = before.saturating_sub(after.len() as u64);
        deleted?;
        Ok(shared)
    }

    /// What is known of the connector, if that is about the JumpCloud side that the configuration names.
    async fn fitting(&self) -> Result<About, Stop> {
        let (about, side) = self
            .state
            .call(|store| Ok((store.about()?, store.jumpcloud_side()?)))
            .await?;
        if side.is_some_and(|side| side != self.config.jumpcloud_fingerprint()) {
            return Err(Stop::Obstacle(Obstacle {
                outcome: RemovalOutcome::Misfit,
                reason: "the configuration names another JumpCloud organisation, region or application than the one that this \
                         connector delivered to last"
                    .to_owned(),
                action: format!(
                    "put the former one into the configuration, and repeat: {}; {}",
                    repeat(self.name()),
                    or_keep(self.name())
                ),
            }));
        }
        Ok(about)
    }

    /// The application that this connector delivered to, if it is there, and who made it.
    async fn application_of(&self, about: &About) -> Result<Option<(ApplicationId, Origin)>, Halt> {
        if let Some(known) = &about.application {
            return match self.jumpcloud.application(known).await {
                Ok(Some(_)) => Ok(Some((known.clone(), about.application_origin.unwrap_or(Origin::Found)))),
                Ok(None) => Ok(None),
                Err(failure) => Err(application::refusal(&self.jumpcloud, failure, false).await),
            };
        }
        if !about.application_unanswered {
            return Ok(None);
        }
        let catalog_app_id = self.config.jumpcloud.application.as_str();
        match application::search_application(&self.jumpcloud, catalog_app_id).await {
            Ok(found) => Ok(found.map(|id| (id, Origin::Created))),
            Err(failure) => Err(application::refusal(&self.jumpcloud, failure, false).await),
        }
    }

    /// Who else delivers to this application, and which of our accounts they need.
    async fn shared(
        &self,
        neighbourhood: &Neighbourhood,
        application: &ApplicationId,
        ours: Vec<EmailKey>,
    ) -> Result<Shared, Stop> {
        let (neighbourhood, config, application) = (neighbourhood.clone(), self.config.clone(), application.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let stores = neighbourhood.sharing(&config, &application)?;
            let path = neighbourhood.state_dir.clone();
            Ok(Shared::look(stores, ours).map_err(|source| StateError::Sql {
                path,
                source,
                system: None,
            }))
        });
        match looked.await {
            Ok(Ok(shared)) => Ok(shared?),
            Ok(Err(obstacle)) => Err(Stop::Obstacle(obstacle)),
            Err(_) => Err(StateError::Ending.into()),
        }
    }

    /// How many accounts are in the application, and how many of these are of people who were forgotten; `None` when it is not there any more.
    async fn count_accounts(&self, application: &ApplicationId) -> Result<Option<(u64, u64)>, Halt> {
        let mut pages = self.jumpcloud.accounts(application);
        let (mut count, mut forgotten) = (0, 0);
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    count += page.len() as u64;
                    forgotten += self.state.call(move |store| store.forgotten_among(&page)).await?;
                }
                // What cannot be read is there all the same.
                Ok(None) => return Ok(Some((count + pages.unread().len() as u64, forgotten))),
                Err(failure) if failure.kind == FailureKind::NotFound => return Ok(None),
                Err(failure) => return Err(application::refusal(&self.jumpcloud, failure, false).await),
            }
        }
    }

    /// Deletes the application. Whether a request whose answer was lost took effect is looked after before it is repeated.
    async fn delete_application(&self, application: &ApplicationId) -> Result<(), Stop> {
        let refused = |words: String| {
            Stop::Obstacle(Obstacle {
                outcome: RemovalOutcome::Partial,
                reason: format!("the application {application} could not be deleted: {words}"),
                action: format!(
                    "delete it in JumpCloud, and repeat: {}; {}",
                    repeat(self.name()),
                    or_keep(self.name())
                ),
            })
        };
        let mut last = Failure::new(
            Peer::JumpCloud,
            "delete application",
            FailureKind::Later { after: None },
            "was not answered",
        );
        for _ in 0..MAX_ATTEMPTS {
            self.go_on()?;
            let refusal = match self.jumpcloud.delete_application(application).await {
                Ok(true) => return Ok(()),
                Ok(false) => Some("JumpCloud answered 404, and has it all the same".to_owned()),
                Err(failure) if failure.is_temporary() => {
                    last = failure;
                    None
                }
                Err(failure)
                    if matches!(
                        failure.kind,
                        FailureKind::Refused | FailureKind::NotOffered | FailureKind::Conflict
                    ) =>
                {
                    return Err(refused(words(&failure)));
                }
                Err(failure) => return Err(application::refusal(&self.jumpcloud, failure, true).await.into()),
            };
            match self.is_there(application).await? {
                false => return Ok(()),
                true => {
                    if let Some(words) = refusal {
                        return Err(refused(words));
                    }
                }
            }
        }
        Err(Halt::Unavailable(last).into())
    }

    async fn is_there(&self, application: &ApplicationId) -> Result<bool, Halt> {
        match self.jumpcloud.application(application).await {
            Ok(found) => Ok(found.is_some()),
            Err(failure) => Err(application::refusal(&self.jumpcloud, failure, false).await),
        }
    }

    /// What a halt means for whoever removes a connector.
    fn obstacle(&self, stop: Stop) -> Result<Obstacle, StateError> {
        let halt = match stop {
            Stop::Obstacle(obstacle) => return Ok(obstacle),
            Stop::Halt(Halt::State(error)) => return Err(error),
            Stop::Halt(halt) => halt,
        };
        let (outcome, action) = match &halt {
            Halt::Reconnect { .. } | Halt::NoSecret { .. } | Halt::NotLicensed(_) => (
                RemovalOutcome::Refused,
                format!(
                    "put credentials into the configuration that may do it, and repeat: {}; {}",
                    repeat(self.name()),
                    or_keep(self.name())
                ),
            ),
            _ => (
                RemovalOutcome::Failed,
                format!("later, again: {}; {}", repeat(self.name()), or_keep(self.name())),
            ),
        };
        Ok(Obstacle {
            outcome,
            reason: halt.to_string(),
            action,
        })
    }
}

/// Why deleting accounts does not go on.
enum Gone {
    /// The application is gone, and all that was in it.
    Application,
    Stop(Stop),
}

impl From<Trouble> for Gone {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::ApplicationGone => Self::Application,
            Trouble::Halt(halt) => Self::Stop(Stop::Halt(halt)),
        }
    }
}

impl From<Halt> for Gone {
    fn from(halt: Halt) -> Self {
        Self::Stop(Stop::Halt(halt))
    }
}

/// Why the application stays, if it does: somebody else made it, delivers to it, or has accounts in it.
fn why_it_stays(origin: Origin, neighbours: &[String], others: u64, forgotten: u64) -> Option<String> {
    if !neighbours.is_empty() {
        let names = neighbours.join(", ");
        return Some(format!("another connector delivers to it: {names}"));
    }
    if origin == Origin::Found {
        return Some("it was there before this connector".to_owned());
    }
    let whose = match forgotten {
        0 => "did not create",
        all if all == others => "created for somebody who is not known any more",
        _ => "did not create, or created for somebody who is not known any more,",
    };
    (others > 0).then(|| {
        format!(
            "{} that this connector {whose} {} in it",
            wording::counted(others, "account"),
            if others == 1 { "is" } else { "are" }
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_goes_only_if_it_is_ours_alone() {
        assert_eq!(why_it_stays(Origin::Created, &[], 0, 0), None);
        assert!(why_it_stays(Origin::Found, &[], 0, 0).is_some());
        assert!(why_it_stays(Origin::Created, &["other".to_owned()], 0, 0).is_some());
        assert!(why_it_stays(Origin::Created, &[], 1, 0).is_some());
        let ours_once = why_it_stays(Origin::Created, &[], 1, 1).unwrap();
        assert!(!ours_once.contains("did not create"), "{ours_once}");
    }
}
