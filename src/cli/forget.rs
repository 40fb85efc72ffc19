//! `forget`: erases somebody who left from what is known here. Through the daemon where one runs; without one under the lock.

use jiff::Timestamp;

use super::confirm::confirmed;
use super::logging::{self, Who};
use super::reach::{ask, may_look};
use super::sync::{chosen, removed_words, state_error};
use super::{CommandError, Context, Exit, ForgetArgs, tell};
use crate::config::Config;
use crate::daemon::control::{Request, Response};
use crate::model::ConnectorName;
use crate::state::{self, Erased, Erasure, State, StateError};
use crate::wording::{counted, printable};

pub(super) async fn run(context: Context, args: ForgetArgs) -> Result<Exit, CommandError> {
    let config = context.config_without_secrets()?;
    logging::start(&config.log, Who::Command, context.verbose);
    may_look(&config.state_dir)?;
    let names = chosen(&config, std::slice::from_ref(&args.name))?;
    let Some(name) = names.first() else {
        return Ok(Exit::Usage);
    };
    if state::removed(&config.state_dir, name).is_some() {
        tell(&format!("{name}: {}", removed_words(name)));
        return Ok(Exit::Partial);
    }
    let whom = printable(&args.person);
    let erased = match erase(&config, name, &args.person, false).await? {
        Erasure::Erased(erased) => erased,
        other => return tell_why_not(&config, name, &args.person, other).await,
    };
    tell(&plan_words(name, &whom, &erased));
    if !confirmed("Forget", "forgotten", &whom, args.yes)? {
        return Ok(Exit::Usage);
    }
    match erase(&config, name, &args.person, true).await? {
        Erasure::Erased(erased) => {
            tell(&format!("{name}: {whom} is forgotten{}", epilogue(&erased)));
            Ok(if erased.lingering { Exit::Partial } else { Exit::Done })
        }
        other => tell_why_not(&config, name, &args.person, other).await,
    }
}

async fn erase(config: &Config, name: &ConnectorName, person: &str, really: bool) -> Result<Erasure, CommandError> {
    let request = Request::Forget {
        connector: name.to_string(),
        person: person.to_owned(),
        really,
    };
    match ask(&config.state_dir, &request).await? {
        Some(Response::Erasure(erasure)) => return Ok(erasure),
        Some(Response::Error(error)) => return Err(CommandError::new(Exit::Unexpected, error)),
        Some(_) => return Err(CommandError::unexpected("the daemon answered another question")),
        None => {}
    }
    // Without a state there is nobody to be forgotten, and none is made for it.
    if state::files(&config.state_dir, name).is_empty() {
        return Ok(Erasure::Unknown);
    }
    let (dir, named) = (config.state_dir.clone(), name.clone());
    let opened = tokio::task::spawn_blocking(move || State::open(&dir, &named)).await;
    let state = opened.unwrap_or(Err(StateError::Ending)).map_err(state_error)?;
    state
        .erase(Timestamp::now(), person.to_owned(), really)
        .await
        .map_err(state_error)
}

async fn tell_why_not(
    config: &Config,
    name: &ConnectorName,
    person: &str,
    erasure: Erasure,
) -> Result<Exit, CommandError> {
    let whom = printable(person);
    let (words, exit) = match erasure {
        Erasure::Unknown => {
            // Somebody who is forgotten twice may have been forgotten by halves.
            erase(config, name, person, true).await?;
            (format!("nothing is known of {whom}"), Exit::Done)
        }
        Erasure::Present(id) => {
            let id = printable(&id);
            let words = format!(
                "{whom} is not forgotten: they count as a user still (id {id}), so the next poll could bring everything back\n  what to do: \
                 remove them in Torq first, and let two polls see it; where their removal is held, approve it; if somebody else had that address before, forget them by \
                 their id: torq-connector forget {name} ID"
            );
            (words, Exit::Partial)
        }
        Erasure::Unsettled(what) => (
            format!("{whom} is not forgotten yet: {what}\n  what to do: let that come to its end, then again"),
            Exit::Partial,
        ),
        Erasure::Erased(_) => return Err(CommandError::unexpected("it was forgotten by somebody else meanwhile")),
    };
    tell(&format!("{name}: {words}"));
    Ok(exit)
}

fn plan_words(name: &ConnectorName, whom: &str, erased: &Erased) -> String {
    let mut words = format!(
        "{name}: of {whom} is known, and goes: {}, {}{}",
        match erased.ids.as_slice() {
            [] => "no record of a user".to_owned(),
            ids => format!("the record of {}", printable(&ids.join(", "))),
        },
        counted(erased.events, "event"),
        match erased.mentions {
            0 => String::new(),
            mentions => format!(", {} elsewhere", counted(mentions, "mention")),
        }
    );
    if erased.copies > 0 {
        let copies = counted(erased.copies, "copy of the state from before an update");
        words.push_str(&format!("; and {copies}, with everybody in it"));
    }
    words + "\nIt cannot be undone."
}

/// What is left for a person to do.
fn epilogue(erased: &Erased) -> String {
    let mut words = String::new();
    if erased.lingering {
        words.push_str(
            "\n  somebody was reading the state just now, so the old bytes may be in its log still: run this again in a moment",
        );
    }
    if !erased.accounts.is_empty() {
        words.push_str(&format!(
            "\n  JumpCloud has an account for them still (id {}): delete it there, if it is to go, too",
            printable(&erased.accounts.join(", "))
        ));
    }
    words
        + "\n  copies elsewhere (backups, snapshots of the machine, exported files, logs at level debug) are not touched"
}
