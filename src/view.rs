//! What is shown: one schema for the commands' JSON, the web API and the status page (`DESIGN`, Interface).
//!
//! Only shapes live here. They are filled by [`crate::state`] and rendered by the command line and the web page.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The state of a connector, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorState {
    /// Started, nothing read yet.
    Starting,
    /// The first poll is running, with progress.
    Collecting,
    /// Idle, and the last delivery finished.
    Connected,
    /// A later run is going on.
    Syncing,
    /// A peer does not answer as it should; the request is being repeated.
    Retrying,
    /// Credentials or permission were refused; a person must act. Polling has stopped.
    ReconnectRequired,
    /// The JumpCloud organisation has no SaaS Management licence.
    NotLicensed,
    /// JumpCloud offers no account writes; everything stays pending and is shown.
    ReportOnly,
    /// Removals too large to be believed wait for approval.
    Held,
    /// Paused by a person.
    Paused,
    /// Removed by a person: neither polled nor delivered, and nothing is known of it any more, or nothing but what a removal that
    /// was cut short has left to do.
    Removed,
}

impl ConnectorState {
    /// Every state.
    pub const ALL: [ConnectorState; 11] = [
        Self::Starting,
        Self::Collecting,
        Self::Connected,
        Self::Syncing,
        Self::Retrying,
        Self::ReconnectRequired,
        Self::NotLicensed,
        Self::ReportOnly,
        Self::Held,
        Self::Paused,
        Self::Removed,
    ];

    /// The name in JSON, in the state and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Collecting => "collecting",
            Self::Connected => "connected",
            Self::Syncing => "syncing",
            Self::Retrying => "retrying",
            Self::ReconnectRequired => "reconnect_required",
            Self::NotLicensed => "not_licensed",
            Self::ReportOnly => "report_only",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Removed => "removed",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// `status --format json` and `GET /api/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// One entry for each connector, in the order of their names.
    pub connectors: Vec<ConnectorStatus>,
    /// Whether a running daemon says so; otherwise it is what was known last.
    #[serde(default)]
    pub daemon: bool,
}

/// What is known about one connector.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// The connector's name.
    pub name: String,
    /// Its state.
    pub state: ConnectorState,
    /// Why it is in that state, for a person; null when there is nothing to explain.
    pub reason: Option<String>,
    /// What a person should do; null when nothing.
    pub action: Option<String>,
    /// When a poll and its delivery last finished.
    pub last_success: Option<Timestamp>,
    /// When the daemon polls next; null when no daemon runs or polling has stopped.
    pub next_poll: Option<Timestamp>,
    /// Users present in the snapshot.
    pub users: u64,
    /// Accounts that JumpCloud is known to have for them.
    pub accounts: u64,
    /// Those of them that are associated with a directory user.
    pub associated: u64,
    /// Users whose account is still to be created.
    pub pending: u64,
    /// Users whose delivery was refused for good, and accounts whose deletion was.
    pub parked: u64,
    /// Of these, accounts of nobody in Torq any more, whose deletion was refused.
    #[serde(default)]
    pub deletions_parked: u64,
    /// Removals that wait for approval.
    pub held: u64,
    /// Of these, accounts whose e-mail nobody in Torq has any more: somebody took another one, or was removed before the approval was
    /// taken back.
    #[serde(default)]
    pub accounts_held: u64,
    /// Users who were removed so far.
    pub removed: u64,
    /// Users whom the filters leave out.
    pub filtered: u64,
    /// Accounts whose directory user is known but whose association is still to be made.
    pub associations_pending: u64,
    /// Accounts of removed users that are still to be deleted.
    pub deletions_pending: u64,
    /// Accounts that JumpCloud is known to have for nobody in Torq any more, and that stay there.
    #[serde(default)]
    pub leftover: u64,
    /// The poll that is running; null when none is.
    pub progress: Option<Progress>,
    /// The last run that ended; null before the first.
    pub last_run: Option<RunSummary>,
}

/// How far the running poll is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Different users seen so far.
    pub users: u64,
    /// Pages applied so far.
    pub pages: u64,
    /// When this poll began.
    pub started: Timestamp,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything was delivered.
    Done,
    /// Something is pending, parked, held or report-only.
    Partial,
    /// A peer could not be reached or failed; the next run goes on.
    Failed,
    /// Credentials, permission or licence were refused.
    Refused,
}

impl RunOutcome {
    /// Every outcome.
    pub const ALL: [RunOutcome; 4] = [Self::Done, Self::Partial, Self::Failed, Self::Refused];

    /// The name in JSON and in the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// What a run changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// What was counted.
    #[serde(flatten)]
    pub counts: RunCounts,
}

/// The counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// Users new in the snapshot.
    pub appeared: u64,
    /// Users whose record changed.
    pub changed: u64,
    /// Users removed.
    pub disappeared: u64,
    /// Accounts created.
    pub created: u64,
    /// Accounts found in JumpCloud and adopted.
    pub found: u64,
    /// Associations made.
    pub associated: u64,
    /// Accounts deleted.
    pub deleted: u64,
    /// Deliveries refused for good.
    pub refused: u64,
}

/// One run, as a list of runs shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// Its number.
    pub run: i64,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; null while it is going on.
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// Why it ended so, when that needs explaining.
    pub reason: Option<String>,
    /// What was counted.
    #[serde(flatten)]
    pub counts: RunCounts,
}

/// `users --format json` and `GET /api/users`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsersReport {
    /// Everyone who is not removed.
    pub users: Vec<UserView>,
}

/// Where a user's account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountStanding {
    /// Created by this connector.
    Created,
    /// Found in JumpCloud and adopted.
    Found,
    /// Still to be created.
    Pending,
    /// Refused for good; see the reason.
    Parked,
    /// The user is gone from Torq, and the removal waits for approval.
    Held,
    /// Left out by the filters.
    Filtered,
}

impl AccountStanding {
    /// Every standing.
    pub const ALL: [AccountStanding; 6] = [
        Self::Created,
        Self::Found,
        Self::Pending,
        Self::Parked,
        Self::Held,
        Self::Filtered,
    ];

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.as_str() == text)
    }

    /// The name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Found => "found",
            Self::Pending => "pending",
            Self::Parked => "parked",
            Self::Held => "held",
            Self::Filtered => "filtered",
        }
    }
}

/// One user of a Torq workspace, and what JumpCloud is known to have for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserView {
    /// The connector.
    pub connector: String,
    /// Torq's id.
    pub id: String,
    /// The e-mail as Torq sent it; empty when Torq sent none.
    pub email: String,
    /// Torq's status, e.g. `VERIFIED`.
    pub status: String,
    /// Whether the SSO identity provider provisioned the user.
    pub sso: bool,
    /// The id of the Torq role.
    pub role_id: String,
    /// The name of the Torq role, when known.
    pub role: Option<String>,
    /// When the user was created in Torq, as Torq sent it.
    pub created: Option<String>,
    /// When the user last logged in to Torq, as Torq sent it; null for never.
    pub last_login: Option<String>,
    /// When a poll first saw the user.
    pub first_seen: Timestamp,
    /// Where the account stands.
    pub account: AccountStanding,
    /// The account's id in JumpCloud, when there is one.
    pub account_id: Option<String>,
    /// The directory user with whom the account is associated.
    pub directory_user_id: Option<String>,
    /// Why the account stands where it does, when that needs explaining.
    pub reason: Option<String>,
}

/// Whether the JumpCloud directory knows somebody with a user's e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// The account is associated with this directory user.
    Associated(String),
    /// This directory user has the e-mail; the account is not associated (yet).
    Known(String),
    /// Nobody there has the e-mail; asked at this time.
    Absent(Timestamp),
    /// The directory was not asked (yet).
    Unasked,
}

impl Directory {
    /// What the association, the last match and the time of the last question mean.
    pub fn of(associated: Option<String>, matching: Option<String>, asked: Option<Timestamp>) -> Self {
        match (associated, matching, asked) {
            (Some(id), _, _) => Self::Associated(id),
            (None, Some(id), _) => Self::Known(id),
            (None, None, Some(asked)) => Self::Absent(asked),
            (None, None, None) => Self::Unasked,
        }
    }
}

/// Everything known about one user.
#[derive(Clone, Debug)]
pub struct UserDetail {
    /// The user. Of a removed one, nothing is said about an account.
    pub user: UserView,
    /// Whether the directory knows the user.
    pub directory: Directory,
    /// When the user was removed; `None` for somebody who is present.
    pub removed_at: Option<Timestamp>,
    /// Ids of other users with the same e-mail, who share its account.
    pub sharing: Vec<String>,
}

/// What an event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A user is new in Torq.
    UserAppeared,
    /// A user's record changed.
    UserChanged,
    /// A user was removed: absent from two complete polls.
    UserDisappeared,
    /// An account was created.
    AccountCreated,
    /// An account was found in JumpCloud and adopted.
    AccountFound,
    /// An account was associated with a directory user.
    AccountAssociated,
    /// An account that this connector created was deleted.
    AccountDeleted,
    /// An account is gone from JumpCloud.
    AccountLost,
    /// A delivery was refused for good.
    AccountRefused,
    /// A removal waits for approval.
    RemovalHeld,
    /// A removal was approved.
    RemovalApproved,
    /// A removal that was held, or approved and not carried out yet, is off: the user is back.
    RemovalDropped,
    /// The connector changed its state.
    StateChanged,
    /// Torq sent a record that could not be read.
    RecordUnreadable,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [EventKind; 14] = [
        Self::UserAppeared,
        Self::UserChanged,
        Self::UserDisappeared,
        Self::AccountCreated,
        Self::AccountFound,
        Self::AccountAssociated,
        Self::AccountDeleted,
        Self::AccountLost,
        Self::AccountRefused,
        Self::RemovalHeld,
        Self::RemovalApproved,
        Self::RemovalDropped,
        Self::StateChanged,
        Self::RecordUnreadable,
    ];

    /// The name in JSON and in the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserAppeared => "user_appeared",
            Self::UserChanged => "user_changed",
            Self::UserDisappeared => "user_disappeared",
            Self::AccountCreated => "account_created",
            Self::AccountFound => "account_found",
            Self::AccountAssociated => "account_associated",
            Self::AccountDeleted => "account_deleted",
            Self::AccountLost => "account_lost",
            Self::AccountRefused => "account_refused",
            Self::RemovalHeld => "removal_held",
            Self::RemovalApproved => "removal_approved",
            Self::RemovalDropped => "removal_dropped",
            Self::StateChanged => "state_changed",
            Self::RecordUnreadable => "record_unreadable",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// `events --format json` and `GET /api/events`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventsReport {
    /// Oldest first.
    pub events: Vec<EventView>,
}

impl EventsReport {
    /// Puts the events of several connectors into one order; with a limit, the latest of them. Those of one connector stay in the
    /// order in which they happened, also where its clock was set back in between.
    pub fn merged(histories: Vec<Vec<EventView>>, limit: Option<u32>) -> Self {
        let mut events: Vec<(Option<Timestamp>, EventView)> = Vec::new();
        for history in histories {
            let mut latest = None;
            events.extend(history.into_iter().map(|event| {
                latest = latest.max(event.at);
                (latest, event)
            }));
        }
        // Stable, so what happened to one connector at the same moment keeps its order.
        events.sort_by_key(|(at, _)| *at);
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        events.drain(..events.len().saturating_sub(limit));
        let events = events.into_iter().map(|(_, event)| event).collect();
        Self { events }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// When; null for what a dry run says would happen.
    pub at: Option<Timestamp>,
    /// The connector.
    pub connector: String,
    /// The number of the run in which it happened; null outside a run.
    pub run: Option<i64>,
    /// What happened.
    pub kind: EventKind,
    /// Torq's id of the user concerned.
    pub user_id: Option<String>,
    /// The e-mail concerned.
    pub email: Option<String>,
    /// What was there before: the fields that changed.
    pub before: Option<serde_json::Value>,
    /// What is there now: the fields that changed.
    pub after: Option<serde_json::Value>,
    /// Why, for a person.
    pub reason: Option<String>,
}

/// `sync --dry-run --format json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DryRunReport {
    /// One entry for each connector.
    pub connectors: Vec<DryRun>,
}

/// What a run of one connector would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DryRun {
    /// The connector's name.
    pub name: String,
    /// Why that cannot be said, and what to do; then there is nothing in the other fields. Missing where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What would change, in the order in which it would happen.
    pub changes: Vec<EventView>,
    /// How many of each.
    pub counts: DryRunCounts,
    /// What the removal guard says.
    pub guard: Guard,
    /// What a person should know about this preview, e.g. that the application would be created first.
    pub notes: Vec<String>,
}

impl DryRun {
    /// For a connector of which that cannot be said.
    pub fn failed(name: &str, error: String) -> Self {
        Self {
            name: name.to_owned(),
            error: Some(error),
            changes: Vec::new(),
            counts: DryRunCounts::default(),
            guard: Guard::default(),
            notes: Vec::new(),
        }
    }
}

/// The counters of a dry run: those of a run, and what would be left over.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct DryRunCounts {
    /// What a run would count.
    #[serde(flatten)]
    pub run: RunCounts,
    /// Removals that would be held.
    pub held: u64,
    /// Users who would be parked.
    pub parked: u64,
    /// Users whose account would still be pending.
    pub pending: u64,
}

/// The removal guard's view of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// How many removals are believed within 24 hours.
    pub limit: u64,
    /// Removals of the last 24 hours.
    pub removals_24h: u64,
    /// Removals that this run would add.
    pub candidates: u64,
    /// Removals that wait already, where there are candidates: later ones wait with them as soon as all together are too many.
    #[serde(default)]
    pub held_already: u64,
    /// Whether they would be held.
    pub held: bool,
}

impl ConnectorStatus {
    /// The status of a connector about which nothing is counted: it has no state yet, or its state cannot be read.
    pub fn unknown(name: &str, state: ConnectorState, reason: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            state,
            reason,
            action: None,
            last_success: None,
            next_poll: None,
            users: 0,
            accounts: 0,
            associated: 0,
            pending: 0,
            parked: 0,
            held: 0,
            removed: 0,
            filtered: 0,
            associations_pending: 0,
            deletions_pending: 0,
            leftover: 0,
            deletions_parked: 0,
            accounts_held: 0,
            progress: None,
            last_run: None,
        }
    }
}
