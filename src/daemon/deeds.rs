//! What people ask of a connector's state, and what they are told: the same through the daemon and, under the lock, without one.

use jiff::Timestamp;

use super::control::ApprovalTerms;
use crate::config::Removals;
use crate::model::ConnectorName;
use crate::state::{Offered, Sql, Store};
use crate::view::ConnectorState;
use crate::wording::{self, BY_ITSELF};

/// Stops polling and delivering.
pub fn pause(store: &mut Store, now: Timestamp) -> Sql<String> {
    store.pause(now, true)?;
    Ok(format!(
        "paused; nothing is polled or delivered until: torq-connector resume {}",
        store.name()
    ))
}

/// What is said of one that is paused, to whoever wants it to run.
pub fn paused_words(name: &impl std::fmt::Display) -> String {
    format!("is paused; to go on: torq-connector resume {name}")
}

/// Lets a paused connector go on. `next`: what happens then.
pub fn resume(store: &mut Store, now: Timestamp, next: &str) -> Sql<String> {
    Ok(if store.pause(now, false)? {
        format!("resumed; {next}")
    } else {
        "is not paused; nothing changes".to_owned()
    })
}

/// Believes what is held at this moment, if that is as many as somebody saw; or takes back what was approved. The status says so
/// until a run has carried it out. `Err`: nothing is approved, and why.
pub fn approve(
    store: &mut Store,
    terms: ApprovalTerms,
    removals: Removals,
    now: Timestamp,
) -> Sql<Result<String, String>> {
    if terms.withdraw {
        let withdrawn = store.withdraw_approval(now)?;
        let words = match withdrawn.held {
            0 => return Ok(Ok("nothing is approved that was not carried out".to_owned())),
            1 => "the approval is withdrawn: 1 removal is held again".to_owned(),
            more => format!("the approval is withdrawn: {more} removals are held again"),
        };
        let late = match withdrawn.under_way {
            0 => String::new(),
            1 => "; JumpCloud was asked to delete 1 account of them already, and it may be gone".to_owned(),
            more => format!("; JumpCloud was asked to delete {more} accounts of them already, and they may be gone"),
        };
        return Ok(Ok(words + &late + &resting(store)?));
    }
    let (status, earlier) = (store.status()?, store.approved()?);
    let held = status.held;
    if held == 0 && earlier > 0 {
        let words = format!("nothing is held; {}", already(earlier, store.name())) + &resting(store)?;
        return Ok(match terms.count {
            Some(_) => Err(words),
            None => Ok(words),
        });
    }
    if let Some(shown) = terms.count
        && held != shown
    {
        let earlier = match earlier {
            0 => String::new(),
            earlier => format!("; {}", already(earlier, store.name())),
        };
        return Ok(Err(format!(
            "{held} held by now, and not {shown}: nothing is approved{earlier}. Look at them again: {}",
            wording::where_held(&status)
        )));
    }
    let accounts = store.held_accounts()?;
    let approved = store.approve(now)?;
    let words = approved_words(approved, accounts, removals);
    let about = store.about()?;
    let words = match about.nameless && approved > 0 {
        true => words + "; but nobody is removed as long as Torq lists a record whose id cannot be read",
        false => words,
    };
    if approved > 0 && about.state == ConnectorState::Held {
        let action = match about.nameless {
            true => wording::about_nameless(store.name()),
            false => wording::about_approved(store.name()),
        };
        store.note_state(now, ConnectorState::Held, Some(&words), Some(&action))?;
    }
    Ok(Ok(words + &resting(store)?))
}

/// Makes pending again what was refused, and lets what was not offered be tried again. Until a run has come to an end, the status
/// says that, and no longer why something was left undone.
pub fn retry(store: &mut Store, now: Timestamp) -> Sql<String> {
    let about = store.about()?;
    let not_offered = |offered| matches!(offered, Offered::No(_));
    let offered_again = not_offered(about.accounts) || not_offered(about.associations);
    store.forget_not_offered()?;
    let deletions = store.status()?.deletions_parked;
    let retried = store.retry()?;
    let words = retried_words(retried.saturating_sub(deletions), deletions, offered_again);
    let undone = matches!(about.state, ConnectorState::Connected | ConnectorState::ReportOnly);
    if undone && (retried > 0 || offered_again) {
        let reason = match offered_again {
            true => "what JumpCloud did not offer, or refused, is tried again, as a person asked".to_owned(),
            false => words.clone(),
        };
        let action = format!("nothing: {BY_ITSELF}");
        store.note_state(now, about.state, Some(&reason), Some(&action))?;
    }
    Ok(words + &resting(store)?)
}

/// That there is no next run as long as it is paused, or waits to be reconnected.
fn resting(store: &Store) -> Sql<String> {
    let (about, name) = (store.about()?, store.name());
    Ok(if about.paused {
        format!("; it is paused until: torq-connector resume {name}")
    } else if about.state == ConnectorState::ReconnectRequired {
        format!("; no run begins before: torq-connector reconnect {name}")
    } else {
        String::new()
    })
}

/// That removals were approved earlier and still wait, and how that is taken back.
fn already(approved: u64, name: &ConnectorName) -> String {
    let were = match approved {
        1 => "1 removal was".to_owned(),
        more => format!("{more} removals were"),
    };
    format!("{were} approved earlier, for the next run (to take that back: torq-connector approve {name} --withdraw)")
}

/// What is said of a connector that is set up again without a daemon.
pub fn set_up_again_words(name: &ConnectorName) -> String {
    format!("it is set up again, from the beginning; no daemon is running: start it, or torq-connector sync {name}")
}

/// `accounts`: how many that this connector created go with them.
fn approved_words(approved: u64, accounts: u64, removals: Removals) -> String {
    let words = match approved {
        0 => return "nothing is held".to_owned(),
        1 => "1 removal approved; the next run carries it out".to_owned(),
        more => format!("{more} removals approved; the next run carries them out"),
    };
    match (removals, accounts) {
        (_, 0) => format!("{words}; none of their accounts is this connector's, so JumpCloud stays as it is"),
        (Removals::Report, _) => format!("{words}, and their accounts stay in JumpCloud (removals = \"report\")"),
        (Removals::Delete, 1) => {
            format!("{words}, and deletes the one account that this connector created for them (removals = \"delete\")")
        }
        (Removals::Delete, more) => {
            format!(
                "{words}, and deletes the {more} accounts that this connector created for them (removals = \"delete\")"
            )
        }
    }
}

/// `users`: how many were parked. `deletions`: how many accounts JumpCloud refused to delete.
fn retried_words(users: u64, deletions: u64, offered_again: bool) -> String {
    let again = match deletions {
        0 => String::new(),
        1 => "1 account is to be deleted again".to_owned(),
        more => format!("{more} accounts are to be deleted again"),
    };
    match (users, deletions, offered_again) {
        (0, 0, false) => "nothing was refused, and nothing is tried again".to_owned(),
        (0, 0, true) => "the next run tries again what JumpCloud did not offer".to_owned(),
        (0, ..) => format!("{again}; the next run does it"),
        (1, 0, _) => "1 user is pending again; the next run delivers".to_owned(),
        (more, 0, _) => format!("{more} users are pending again; the next run delivers"),
        (users, ..) => format!(
            "{} pending again, and {again}; the next run does both",
            match users {
                1 => "1 user is".to_owned(),
                more => format!("{more} users are"),
            }
        ),
    }
}
