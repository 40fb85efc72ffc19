//! What holds beside a history and after it: a healthy connector is not disturbed, readiness tells the truth, and when the
//! weather clears everything comes in step.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use torq_connector::http::Patience;
use torq_connector::sandbox::Sandbox;
use torq_connector::state::State;
use torq_connector::sync::Connector;
use torq_connector::view::{AccountStanding, ConnectorState, RunOutcome, UserView};
use torq_connector::web::{self, Access, Board, Live, Seat};

use super::filters::is_left_out;
use super::history::{End, Run};
use super::law::{Look, Verdict};
use super::model::View;
use super::trial::{Trial, connector_between, town};
use crate::binary::get;
use crate::world::{fold, key_of};

/// Another connector of the same process, with peers of its own, for whom the weather is always fine.
pub struct Bystander(Option<(Sandbox, Connector, tempfile::TempDir)>);

impl Bystander {
    pub async fn new(wanted: bool) -> Self {
        if !wanted {
            return Self(None);
        }
        let sandbox = town(13, 3, 3).await;
        let dir = tempfile::tempdir().unwrap();
        let (config, network) = connector_between(&sandbox, &sandbox, dir.path());
        let state = State::open(dir.path(), &config.name).unwrap();
        let patience = Patience::COMMAND;
        let connector = Connector::new(config.into(), &network, state, patience, CancellationToken::new()).unwrap();
        Self(Some((
            sandbox,
            connector.at_rate(1e6).settling_within(Duration::from_millis(1)),
            dir,
        )))
    }

    /// A run beside whatever happens to the other one: exact, each time.
    pub async fn run(&mut self, now: bool) -> Verdict {
        let Some((sandbox, connector, _)) = self.0.as_ref().filter(|_| now) else {
            return Ok(());
        };
        sandbox.world().add_people(1);
        let end = connector.run().await.map_err(|error| error.to_string())?;
        let (people, accounts) = (sandbox.world().people().len(), sandbox.world().accounts().len());
        if end.outcome == RunOutcome::Done && people == accounts {
            return Ok(());
        }
        Err(format!(
            "law 5: the healthy connector: {end:?}; {people} people, {accounts} accounts"
        ))
    }
}

/// `/readyz` of a daemon that has just this connector.
pub struct Readiness {
    address: std::net::SocketAddr,
    board: Board,
    live: watch::Sender<Live>,
    _stop: tokio_util::sync::DropGuard,
}

impl Readiness {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let board = Board::new();
        let stop = CancellationToken::new();
        let access = Access {
            local: true,
            password: None,
            hosts: Vec::new(),
        };
        let until = stop.clone().cancelled_owned();
        tokio::spawn(web::serve(listener, board.clone(), access, None, until));
        Self {
            address,
            board,
            live: watch::Sender::new(Live::new()),
            _stop: stop.drop_guard(),
        }
    }

    /// Ready is who is paused, or succeeded once and is not refused now.
    pub async fn law_6_ready_means_a_success_and_no_refusal(&mut self, trial: &mut Trial) -> Verdict {
        let Some(state) = trial.open_state() else { return Ok(()) };
        let config = trial.config();
        let name = config.name.clone();
        self.board.seat(Seat {
            key_expires: None,
            settings: std::sync::Arc::new(torq_connector::web::Settings::of(&config)),
            name: name.clone(),
            state: Some(state),
            poll_interval: Duration::from_secs(600),
            live: self.live.subscribe(),
        });
        let (answer, text) = get(self.address, "/readyz").await;
        self.board.remove(&name);
        let status = trial.status();
        let ready = trial.paused
            || status.is_some_and(|status| {
                let refused = [ConnectorState::ReconnectRequired, ConnectorState::NotLicensed];
                status.last_success.is_some() && !refused.contains(&status.state)
            });
        if (answer == 200) == ready {
            return Ok(());
        }
        Err(format!("law 6: ready: {ready}, and told: {text}"))
    }
}

fn undisturbed() -> Run {
    Run {
        faults: Vec::new(),
        meanwhile: None,
        end: End::ByItself,
    }
}

async fn run(trial: &mut Trial) -> Verdict {
    trial.happen(&super::history::Step::Run(undisturbed())).await;
    Look::at(trial)
        .judge()
        .map_err(|wrong| format!("in fine weather: {wrong}"))
}

/// Faults end, and what people did is put right: a bounded number of undisturbed runs brings everything in step, and then nothing
/// is written any more.
pub async fn clears(trial: &mut Trial) -> Verdict {
    use super::history::{Act, Change, Mood, Step};
    for step in [
        Step::Mood(Mood::Well),
        Step::Change(Change::Heal),
        Step::Act(Act::Pause(false)),
        Step::Act(Act::Retry),
        Step::Act(Act::Restart),
    ] {
        trial.happen(&step).await;
    }
    // Somebody is there, or the workspace would rightly be held.
    trial
        .happen(&Step::Change(Change::Arrive(super::history::Mail::Own, true)))
        .await;
    run(trial).await?;
    // A 409 that nobody could look into before is parked only now, and a person sees it.
    let unlisted = |user: &UserView| user.reason.as_ref().is_some_and(|reason| reason.contains("(409)"));
    if trial.users().iter().any(unlisted) {
        trial.happen(&Step::Act(Act::Retry)).await;
    }
    for _ in 0..4 {
        run(trial).await?;
    }
    in_step(trial)?;
    for process in ["the same process", "another process"] {
        for town in &trial.towns {
            town.world().clear_requests();
        }
        run(trial).await?;
        let writes: Vec<_> = trial.towns.iter().flat_map(|town| town.world().writes()).collect();
        if !writes.is_empty() {
            return Err(format!("in step, and {process} still writes: {writes:?}"));
        }
        trial.end_process().await;
    }
    // Whoever is held is gone when that is approved, and nobody else.
    let held: Vec<String> = trial
        .users()
        .into_iter()
        .filter(|user| user.account == AccountStanding::Held)
        .map(|user| user.id)
        .collect();
    trial.happen(&Step::Act(Act::Approve)).await;
    run(trial).await?;
    let left: Vec<_> = trial
        .users()
        .into_iter()
        .filter(|user| held.contains(&user.id))
        .collect();
    if !left.is_empty() || trial.users().iter().any(|user| user.account == AccountStanding::Held) {
        return Err(format!("approved, and still there: {left:?}"));
    }
    in_step(trial)
}

/// One account for each e-mail of the people in Torq, with the directory user who has it; and what is shown is what is there.
fn in_step(trial: &mut Trial) -> Verdict {
    let accounts: BTreeMap<String, _> = trial
        .organisation()
        .accounts()
        .into_iter()
        .map(|account| (account.id.clone(), account))
        .collect();
    let directory: BTreeMap<String, String> = trial
        .organisation()
        .directory()
        .into_iter()
        .map(|user| (user.email, user.id))
        .collect();
    let people = trial.workspace().people();
    let shown: BTreeMap<String, _> = trial.users().into_iter().map(|user| (user.id.clone(), user)).collect();
    for person in &people {
        let Some(user) = shown.get(&person.id) else {
            return Err(format!("{} is in Torq, and not shown", person.email));
        };
        if is_left_out(trial.settings.filter, &user.email, &person.status) || user.email.is_empty() {
            continue;
        }
        let account = user.account_id.as_ref().and_then(|id| accounts.get(id));
        let Some(account) = account.filter(|account| key_of(account) == Some(fold(&user.email))) else {
            return Err(format!("{user:?} has the account {account:?}"));
        };
        let owner = directory.get(&fold(&user.email));
        if owner.is_some() && owner != account.user_id.as_ref() {
            return Err(format!("{account:?} is not {owner:?}'s"));
        }
        if user.directory_user_id != account.user_id {
            return Err(format!("{user:?} is shown, and there is {account:?}"));
        }
    }
    let there = View::of(&people);
    for user in shown.values() {
        let gone = !there.people.contains_key(&user.id);
        if gone && user.account != AccountStanding::Held {
            return Err(format!("{user:?} is not in Torq any more, and neither gone nor held"));
        }
    }
    Ok(())
}
