//! The laws: the six lines of "What may never happen", and what follows from them. Each looks at what is there after a step, and
//! says what is wrong, if something is.

use std::collections::{BTreeMap, BTreeSet};

use torq_connector::sandbox::{Endpoint, RequestLog};
use torq_connector::view::{
    AccountStanding, ConnectorState, ConnectorStatus, EventKind, EventView, RunOutcome, UserView,
};

use super::filters::is_left_out;
use super::history::Max;
use super::model::{By, Past, Span, View};
use super::trial::{Settings, Trial};
use crate::world::{fold, key_of};

pub type Verdict = Result<(), String>;

/// What is there after a step.
pub struct Look<'a> {
    pub trial: &'a mut Trial,
    pub users: Vec<UserView>,
    pub status: Option<ConnectorStatus>,
    pub events: Vec<EventView>,
    pub journals: [Vec<RequestLog>; 2],
}

impl<'a> Look<'a> {
    pub fn at(trial: &'a mut Trial) -> Self {
        Self {
            users: trial.users(),
            status: trial.status(),
            events: trial.fresh_events(),
            journals: trial.journals(),
            trial,
        }
    }

    fn past(&mut self) -> &mut Past {
        &mut self.trial.past
    }

    /// All laws that speak of a step.
    pub fn judge(&mut self) -> Verdict {
        law_1_nobody_is_gone_who_was_not_missed_twice(self)?;
        law_1_no_more_is_believed_unasked_than_the_limit(self)?;
        law_1_only_what_is_ours_and_nobodys_is_deleted_and_only_under_delete(self)?;
        law_2_no_e_mail_gets_a_second_account_through_us(self)?;
        law_3_nobody_is_forgotten(self)?;
        law_3_what_is_shown_adds_up(self)?;
        law_5_a_refused_record_stops_no_other(self)?;
        law_6_health_speaks_of_the_last_success(self)?;
        law_6_done_means_done(self)
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whoever was removed was missed by two complete, clean polls in a row, the last ones: whether it was approved or not.
fn law_1_nobody_is_gone_who_was_not_missed_twice(look: &mut Look<'_>) -> Verdict {
    let gone = look
        .events
        .iter()
        .filter(|event| event.kind == EventKind::UserDisappeared);
    for event in gone {
        let id = event.user_id.clone().unwrap();
        let seen = |span: &Span| span.throughout.contains_key(&id);
        ensure(look.trial.past.missed_twice(seen), || {
            format!(
                "law 1: {id} was removed and not missed by two polls: {:#?}",
                look.trial.past.polls
            )
        })?;
    }
    Ok(())
}

/// How many removals are believed unasked now, at most.
fn limit(settings: &Settings, users: u64) -> u64 {
    match settings.max {
        Max::Users(users) => users,
        Max::Percent(percent) => ((users as f64 * percent / 100.0) as u64).max(5),
    }
}

/// A case lasts no day, so everything that was removed unasked counts together. An empty workspace and one behind another key or
/// address remove nobody unasked at all.
fn law_1_no_more_is_believed_unasked_than_the_limit(look: &mut Look<'_>) -> Verdict {
    let gone: Vec<(String, String)> = look
        .events
        .iter()
        .filter(|event| event.kind == EventKind::UserDisappeared)
        .map(|event| {
            let email = event.email.clone().unwrap_or_default();
            (event.user_id.clone().unwrap(), fold(&email))
        })
        .collect();
    let users = look.status.as_ref().map_or(0, |status| status.users) + gone.len() as u64;
    let limit = limit(&look.trial.settings, users);
    let empty = look
        .trial
        .past
        .polls
        .last()
        .is_some_and(|poll| poll.span.sometime.is_empty());
    let past = look.past();
    past.highest_limit = past.highest_limit.max(limit);
    let mut unasked = 0;
    for (id, email) in gone {
        if past.approved.remove(&id) {
            continue;
        }
        unasked += 1;
        past.unasked.push(id);
        past.unasked_emails.insert(email);
    }
    let (all, doubt) = (past.unasked.len() as u64, past.doubt);
    ensure(unasked == 0 || all <= limit, || {
        format!(
            "law 1: {all} removals unasked, and {limit} are believed: {:?}",
            look.trial.past.unasked
        )
    })?;
    ensure(unasked == 0 || !empty, || {
        "law 1: an empty workspace removed somebody".to_owned()
    })?;
    ensure(unasked == 0 || !doubt, || {
        "law 1: another Torq side removed somebody unasked".to_owned()
    })?;
    // Everybody who is known was there for the new side: the doubt is over.
    let known: BTreeSet<&String> = look.users.iter().map(|user| &user.id).collect();
    let all_there = |span: &Span| known.iter().all(|id| span.sometime.contains(*id));
    let over = look.trial.past.polls.last().is_some_and(|poll| all_there(&poll.span));
    if over && look.trial.ran.is_some() {
        look.past().doubt = false;
    }
    Ok(())
}

/// Every deletion was of an account that we made, whose e-mail nobody had in two complete polls in a row, the last ones; and
/// under `report` none was even tried.
fn law_1_only_what_is_ours_and_nobodys_is_deleted_and_only_under_delete(look: &mut Look<'_>) -> Verdict {
    for organisation in 0..2 {
        let deletions: Vec<RequestLog> = look.journals[organisation]
            .iter()
            .filter(|entry| entry.endpoint == Endpoint::AccountDelete)
            .cloned()
            .collect();
        for entry in deletions {
            ensure(look.trial.settings.delete, || {
                format!("law 1: deleted under report: {}", entry.path)
            })?;
            let id = entry.path.rsplit('/').next().unwrap().to_owned();
            let made = look.trial.past.made.get(&(organisation, id.clone())).cloned();
            let Some(made) = made else {
                return Err(format!("law 1: {id} was never there, and is deleted"));
            };
            ensure(made.by != By::Others, || {
                format!("law 1: {made:?} is not ours, and is deleted")
            })?;
            let email = made.email.unwrap_or_default();
            ensure(look.trial.past.missed_twice(|span| span.carried(&email)), || {
                format!("law 1: the account of {email} is deleted, who was not missed by two polls")
            })?;
            if entry.handled.is_none_or(|status| status >= 300) {
                continue;
            }
            let past = look.past();
            let asked = past.approved_emails.contains(&email) || past.unasked_emails.contains(&email);
            if !asked {
                past.unasked_accounts.insert(id);
            }
            let all = (past.unasked.len() + past.unasked_accounts.len()) as u64;
            let highest = past.highest_limit;
            ensure(asked || all <= highest, || {
                format!("law 1: {all} removals and releases unasked, and never more than {highest} were believed")
            })?;
        }
    }
    Ok(())
}

/// Of the accounts with one e-mail, only the first can be ours; unless somebody else made the first one after we last read the
/// list, and JumpCloud took ours all the same.
fn law_2_no_e_mail_gets_a_second_account_through_us(look: &mut Look<'_>) -> Verdict {
    for (organisation, town) in look.trial.towns.iter().enumerate() {
        let mut by_email: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for account in town.world().accounts() {
            let Some(email) = key_of(&account) else { continue };
            by_email.entry(email).or_default().push(account.id);
        }
        for (email, mut ids) in by_email.into_iter().filter(|(_, ids)| ids.len() > 1) {
            // Ids grow, so their order is the order in which they were made.
            ids.sort();
            let past = &look.trial.past;
            let of = |id: &String| past.made[&(organisation, id.clone())].clone();
            let first = of(&ids[0]);
            for second in ids[1..].iter().map(of) {
                let unknowable = first.by != By::Us && first.step >= past.listed[organisation].min(second.step);
                ensure(second.by != By::Us || second.step < past.step || unknowable, || {
                    format!("law 2: {email} has the accounts {ids:?}, and we made the second one")
                })?;
            }
        }
        // Other applications are none of our business.
        let foreign = look.journals[organisation].iter().filter(|entry| entry.is_write());
        let torq: BTreeSet<String> = town.world().application().into_iter().map(|one| one.id).collect();
        let others: Vec<String> = town.world().applications().into_iter().map(|one| one.id).collect();
        for entry in foreign {
            let touched = others
                .iter()
                .find(|id| !torq.contains(*id) && entry.path.contains(id.as_str()));
            ensure(touched.is_none(), || {
                format!("{} is not the Torq application: {touched:?}", entry.path)
            })?;
        }
    }
    Ok(())
}

/// Everybody who was there throughout the last complete poll is shown.
fn law_3_nobody_is_forgotten(look: &mut Look<'_>) -> Verdict {
    let shown: BTreeMap<&str, &UserView> = look.users.iter().map(|user| (user.id.as_str(), user)).collect();
    ensure(shown.len() == look.users.len(), || {
        "law 3: somebody is shown twice".to_owned()
    })?;
    let Some(span) = look.trial.past.latest() else {
        return Ok(());
    };
    let now = View::of(&look.trial.workspace().people());
    for (id, sight) in &span.throughout {
        let Some(user) = shown.get(id.as_str()) else {
            return Err(format!(
                "law 3: {id} was in Torq throughout the last poll, and is not shown"
            ));
        };
        ensure(user.account != AccountStanding::Held, || {
            format!("law 3: {id} was there throughout the last poll, and their removal is held")
        })?;
        // Pages of a poll that was given up may know better by now.
        let still = now.people.get(id) == Some(sight);
        if let Some(email) = sight.email.as_ref().filter(|_| still) {
            ensure(fold(&user.email) == *email, || {
                format!("law 3: {id} is {email} in Torq, and shown as {}", user.email)
            })?;
        }
    }
    Ok(())
}

/// Each user stands where they can be found, and the counts are those of the users.
fn law_3_what_is_shown_adds_up(look: &mut Look<'_>) -> Verdict {
    let Some(status) = &look.status else { return Ok(()) };
    let count = |standing| look.users.iter().filter(|user| user.account == standing).count() as u64;
    let users = (
        look.users.len() as u64,
        count(AccountStanding::Pending),
        // Of those whose account JumpCloud refuses to delete, nobody is there any more.
        count(AccountStanding::Parked) + status.deletions_parked,
    );
    ensure(users == (status.users, status.pending, status.parked), || {
        format!("law 3: {users:?} are shown, and the status says {status:?}")
    })?;
    ensure(status.held >= count(AccountStanding::Held), || {
        format!("law 3: held: {status:?}")
    })?;
    for user in &look.users {
        let has_account = user.account_id.is_some();
        let good = match user.account {
            AccountStanding::Created | AccountStanding::Found => has_account,
            AccountStanding::Pending => !has_account && !user.email.is_empty(),
            AccountStanding::Parked => user.reason.is_some(),
            AccountStanding::Held | AccountStanding::Filtered => true,
        };
        ensure(good, || format!("law 3: {user:?}"))?;
        if user.account == AccountStanding::Created {
            let id = user.account_id.clone().unwrap();
            let ours = (0..2).any(|one| {
                look.trial
                    .past
                    .made
                    .get(&(one, id.clone()))
                    .is_some_and(|made| made.by != By::Others)
            });
            ensure(ours, || format!("law 1: we did not make this account: {user:?}"))?;
        }
        if let Some(filter) = look.trial.filter_told {
            let left_out = is_left_out(filter, &user.email, &user.status);
            let standing = user.account == AccountStanding::Filtered;
            ensure(left_out == standing || user.account == AccountStanding::Held, || {
                format!("filter {filter} and {user:?}")
            })?;
        }
    }
    // What the process that works says, and what anybody sees who looks at the file, is the same.
    Ok(())
}

/// An undisturbed run in which only some e-mails are refused, or fail, is exact about everybody else.
fn law_5_a_refused_record_stops_no_other(look: &mut Look<'_>) -> Verdict {
    let Some(ran) = &look.trial.ran else { return Ok(()) };
    let Some(end) = ran.end.as_ref().filter(|end| end.halt.is_none()) else {
        return Ok(());
    };
    if !ran.undisturbed || look.trial.moody || look.trial.refused.is_empty() || look.trial.unnoticed {
        return Ok(());
    }
    let Some(span) = look.trial.past.latest() else {
        return Ok(());
    };
    for user in look.users.iter().filter(|user| span.throughout.contains_key(&user.id)) {
        let concerned = look.trial.refused.contains(&fold(&user.email)) || user.email.is_empty();
        // Parked or not offered before; a person has not said yet that it may be tried again.
        let not_offered = "JumpCloud does not offer writing accounts";
        let said = end
            .status
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains(not_offered));
        let earlier = user.account == AccountStanding::Parked || said;
        let delivered = user.account_id.is_some() || user.account == AccountStanding::Filtered;
        ensure(concerned || earlier || delivered, || {
            format!(
                "law 5: {user:?} has no account, and only {:?} are refused",
                look.trial.refused
            )
        })?;
    }
    Ok(())
}

/// The last success is that of a run that came to its end; a run that failed says what failed.
fn law_6_health_speaks_of_the_last_success(look: &mut Look<'_>) -> Verdict {
    let before = look.trial.before.as_ref().and_then(|status| status.last_success);
    let Some(status) = &look.status else { return Ok(()) };
    let ended = look.trial.ran.as_ref().and_then(|ran| ran.end.as_ref());
    let Some(end) = ended else {
        let killed = look.trial.ran.is_some();
        // A run may have been killed after all was noted.
        return ensure(killed || status.last_success == before, || {
            "law 6: a success without a run".to_owned()
        });
    };
    let succeeded = matches!(end.outcome, RunOutcome::Done | RunOutcome::Partial);
    let advanced = status.last_success.is_some() && status.last_success >= before;
    ensure(
        if succeeded {
            advanced
        } else {
            status.last_success == before
        },
        || {
            format!(
                "law 6: {:?}, and the last success went from {before:?} to {:?}",
                end.outcome, status.last_success
            )
        },
    )?;
    let state_fits = match (&end.outcome, end.halt.is_some()) {
        (RunOutcome::Failed, _) => {
            let was = look
                .trial
                .before
                .as_ref()
                .map_or(ConnectorState::Starting, |status| status.state);
            let stopped = matches!(end.halt, Some(torq_connector::sync::Halt::Stopped));
            status.state == ConnectorState::Retrying
                || stopped
                    && (status.state == was || was == ConnectorState::Starting || was == ConnectorState::Collecting)
        }
        (RunOutcome::Refused, _) => matches!(
            status.state,
            ConnectorState::ReconnectRequired | ConnectorState::NotLicensed
        ),
        (_, halted) => {
            !halted
                && matches!(
                    status.state,
                    ConnectorState::Connected | ConnectorState::Held | ConnectorState::ReportOnly
                )
        }
    };
    ensure(state_fits, || {
        format!("law 6: {:?} and {:?} became {:?}", end.outcome, end.halt, status.state)
    })?;
    let plain = [
        ConnectorState::Connected,
        ConnectorState::Starting,
        ConnectorState::Collecting,
    ];
    let explained = plain.contains(&status.state) || status.reason.is_some();
    ensure(explained, || format!("law 6: {:?} without a reason", status.state))?;
    ensure(
        end.outcome != RunOutcome::Done || status.pending + status.parked + status.held == 0,
        || format!("law 6: done, and {status:?}"),
    )
}

/// Where a run says that everything was delivered, it is so: everybody who was there throughout has the account that is shown.
fn law_6_done_means_done(look: &mut Look<'_>) -> Verdict {
    let done = |end: &torq_connector::sync::RunEnd| end.outcome == RunOutcome::Done;
    let ended = look.trial.ran.as_ref().and_then(|ran| ran.end.as_ref());
    if !ended.is_some_and(done) || look.trial.unnoticed {
        return Ok(());
    }
    let accounts = look.trial.organisation().accounts();
    let directory = look.trial.organisation().directory();
    let Some(span) = look.trial.past.latest() else {
        return Ok(());
    };
    let there = look.users.iter().filter(|user| span.throughout.contains_key(&user.id));
    for user in there.filter(|user| user.account != AccountStanding::Filtered) {
        let account = accounts
            .iter()
            .find(|account| Some(&account.id) == user.account_id.as_ref());
        let right = account.is_some_and(|account| key_of(account) == Some(fold(&user.email)));
        ensure(right, || format!("law 6: done, and {user:?} has {account:?}"))?;
        let owner = directory
            .iter()
            .find(|one| one.email == fold(&user.email))
            .map(|one| &one.id);
        let owned = account.and_then(|account| account.user_id.as_ref());
        ensure(owner.is_none() || owner == owned, || {
            format!(
                "law 6: done, and the account of {} belongs to {owned:?} instead of {owner:?}",
                user.email
            )
        })?;
    }
    Ok(())
}
