//! A dry run: a run on a copy of the state in memory, which reads everything and writes nothing anywhere. What it would
//! change is what the copy's events and its remaining work say.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::application;
use super::deliver::{Delivery, Trouble};
use super::learn::learn_without_application;
use super::{Connector, Halt, collect, notice};
use crate::config::Removals;
use crate::model::EmailKey;
use crate::state::{Creation, EventQuery, Sql, Store};
use crate::view::{AccountStanding, DryRun, DryRunCounts, EventKind, EventView};
use crate::wording::{counted, name_roles};

/// The ids of the users whom the filters leave out.
fn filtered(store: &mut Store) -> Sql<BTreeSet<String>> {
    if store.status()?.filtered == 0 {
        return Ok(BTreeSet::new());
    }
    let users = store.users()?.into_iter();
    let left_out = users.filter(|user| user.account == AccountStanding::Filtered);
    Ok(left_out.map(|user| user.id).collect())
}

/// How many users would be without an account still after these creates.
fn left_pending(store: &mut Store, creations: &[Creation]) -> Sql<u64> {
    if store.status()?.pending == 0 {
        return Ok(0);
    }
    let keys: BTreeSet<&EmailKey> = creations.iter().map(|creation| &creation.key).collect();
    let pending = store.users()?.into_iter().filter(|user| {
        let key = EmailKey::fold(&user.email);
        user.account == AccountStanding::Pending && (key.is_empty() || !keys.contains(&key))
    });
    Ok(pending.count() as u64)
}

/// What the filters leave out, and what changed filters make of users who are known.
fn note_filters(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let mut notes = Vec::new();
    if !now.is_empty() {
        notes.push(format!("the filters leave {} out", counted(now.len() as u64, "user")));
    }
    let (more, fewer) = (now.difference(before).count(), before.difference(now).count());
    // On a first run everybody is new, and nothing has changed.
    if !before.is_empty() && more + fewer > 0 {
        notes.push(format!(
            "that is {more} more than before, whose accounts stay as they are, and {fewer} fewer"
        ));
    }
    notes
}

impl Connector {
    /// Polls, and says what a run would do. The connector must have been put together with [`crate::state::State::scratch`].
    pub async fn dry_run(&self) -> Result<DryRun, Halt> {
        self.has_secrets()?;
        self.read_roles().await?;
        let before = self.state.call(filtered).await?;
        let run = self.begin().await?;
        let end = collect::collect(self).await?;
        let mut notes: Vec<String> = self
            .clock_ahead()
            .map(|ahead| notice::of_clock(ahead).0)
            .into_iter()
            .collect();
        let learnt = match application::find_application(self, false).await? {
            Some(application) => Delivery::new(self, application).learn().await,
            None => Err(Trouble::ApplicationGone),
        };
        let learnt = match learnt {
            Err(Trouble::ApplicationGone) => {
                notes.push(self.note_no_application());
                learn_without_application(self).await
            }
            learnt => learnt,
        };
        match learnt {
            // Only what names an application can find it gone.
            Ok(()) | Err(Trouble::ApplicationGone) => {}
            Err(Trouble::Halt(halt)) => return Err(halt),
        }
        let about = self.state.call(|store| store.about()).await?;
        let report_only = application::recently_not_offered(&about);
        match application::report_only(&about) {
            Some(reason) if report_only => notes.push(reason),
            Some(reason) => notes.push(format!("{reason}; it is due to be tried again")),
            None => {}
        }
        let name = self.name().to_string();
        let deletes = self.config.removals == Removals::Delete;
        let planned = |kind, user_id: Option<String>, email: String, after: Option<serde_json::Value>| EventView {
            at: None,
            connector: name.clone(),
            run: None,
            kind,
            user_id,
            email: Some(email),
            before: None,
            after,
            reason: None,
        };
        let (events, creations, associations, deletions, counts, status, left_out, pending) = self
            .state
            .call(move |store| {
                let query = EventQuery {
                    run: Some(run),
                    ..EventQuery::default()
                };
                let all = usize::try_from(i64::MAX).unwrap_or(usize::MAX);
                let first = EmailKey::fold("");
                let status = store.status()?;
                let left_out = filtered(store)?;
                let mut events = store.events(&query)?;
                name_roles(&mut events, &store.roles()?);
                let creations = store.to_create(&first, all)?;
                let pending = left_pending(store, &creations)?;
                Ok((
                    events,
                    creations,
                    store.to_associate(&first, all)?,
                    if deletes {
                        store.to_delete(&first, all)?
                    } else {
                        Vec::new()
                    },
                    store.end_run(Timestamp::now(), crate::view::RunOutcome::Done, None)?,
                    status,
                    left_out,
                    pending,
                ))
            })
            .await?;
        let mut counts = DryRunCounts {
            run: counts,
            held: status.held,
            parked: status.parked,
            pending,
        };
        let mut changes: Vec<EventView> = events
            .into_iter()
            .filter(|event| event.kind != EventKind::StateChanged)
            .map(|event| EventView {
                at: None,
                run: None,
                ..event
            })
            .collect();
        let mut creations: Vec<_> = creations
            .into_iter()
            .filter(|creation| !creation.key.is_empty())
            .collect();
        if report_only {
            // A run would not even try.
            counts.pending = status.pending;
            notes.push(format!("{} users would stay pending", counts.pending));
            creations.clear();
        }
        for creation in creations {
            counts.run.created += 1;
            counts.run.associated += u64::from(creation.directory_user.is_some());
            let after = serde_json::json!({ "directory_user_id": creation.directory_user });
            changes.push(planned(
                EventKind::AccountCreated,
                Some(creation.user_id),
                creation.email,
                Some(after),
            ));
        }
        for association in associations {
            counts.run.associated += 1;
            let mut change = planned(
                EventKind::AccountAssociated,
                None,
                association.key.to_string(),
                Some(serde_json::json!({ "directory_user_id": association.directory_user })),
            );
            change.before = Some(serde_json::json!({ "directory_user_id": association.before }));
            changes.push(change);
        }
        for deletion in deletions {
            counts.run.deleted += 1;
            let mut change = planned(EventKind::AccountDeleted, None, deletion.key.to_string(), None);
            change.before = Some(serde_json::json!({ "account_id": deletion.account }));
            changes.push(change);
        }
        if status.held > 0 && end.held == 0 {
            let held = counted(status.held, "removal");
            notes.push(format!(
                "{held} held already, until the users are back or: torq-connector approve {name} --count {}",
                status.held
            ));
        }
        if about.paused {
            notes.push(format!(
                "it is paused: no run begins before: torq-connector resume {name}"
            ));
        }
        notes.extend(note_filters(&before, &left_out));
        if status.parked > 0 {
            notes.push(format!("{} users are or would be parked", status.parked));
        }
        Ok(DryRun {
            name,
            error: None,
            changes,
            counts,
            guard: end.guard,
            notes,
        })
    }

    fn note_no_application(&self) -> String {
        format!(
            "the application {} is not in JumpCloud yet: a run would create it first",
            self.config.jumpcloud.application
        )
    }
}
