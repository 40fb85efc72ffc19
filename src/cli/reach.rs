//! Reaching what a command is about: the state folder, into which not everybody may look, and the daemon that works there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::logging::{self, Who};
use super::sync::chosen;
use super::{CommandError, Context, Exit, tell};
use crate::config::{self, Config};
use crate::daemon::control::{self, Request, Response};
use crate::model::ConnectorName;
use crate::view::StatusReport;

/// How long a daemon may take before a person is told what is being waited for.
const SAYS_NOTHING: Duration = Duration::from_secs(2);

/// What a command looks at that only reads what is known: it needs no secret, and what is wrong with one connector's section hides no
/// other connector.
pub(super) struct Sight {
    pub(super) config: Config,
    /// The connectors that are meant and can be looked at.
    pub(super) names: Vec<ConnectorName>,
    /// Those that are meant, and cannot.
    pub(super) missing: Vec<String>,
    /// What is wrong with them, and with others; to be told.
    pub(super) remark: Option<String>,
    /// How the command exits at best: one that is meant cannot be looked at.
    pub(super) exit: Exit,
}

impl Sight {
    /// At these connectors, or at all of them where none is named.
    pub(super) fn at(context: &Context, names: &[String]) -> Result<Self, CommandError> {
        let usable =
            config::load_usable(&context.path, &context.env).map_err(|problems| context.problems(&problems))?;
        let (wrong, good): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| usable.is_wrong(name));
        let told = usable.problems.as_ref().map(|problems| context.problems(problems));
        if let Some(told) = &told
            && good.is_empty()
            && !wrong.is_empty()
        {
            return Err(CommandError::new(told.exit, &told.message));
        }
        let missing = if names.is_empty() { usable.wrong() } else { wrong };
        let exit = if missing.is_empty() { Exit::Done } else { Exit::Config };
        let remark = told.map(|told| format!("{}\nThe other connectors are not concerned.", told.message));
        Ok(Self {
            missing,
            remark,
            exit,
            ..Self::of(usable.config, context, &good)?
        })
    }

    /// At these connectors of a configuration with which nothing is wrong, or at all of them.
    pub(super) fn of(config: Config, context: &Context, names: &[String]) -> Result<Self, CommandError> {
        logging::start(&config.log, Who::Command, context.verbose);
        Ok(Self {
            names: chosen(&config, names)?,
            config,
            missing: Vec::new(),
            remark: None,
            exit: Exit::Done,
        })
    }

    /// The same, and says what is wrong.
    pub(super) fn at_and_tell(context: &Context, names: &[String]) -> Result<Self, CommandError> {
        let look = Self::at(context, names)?;
        look.remark.iter().for_each(|remark| tell(remark));
        Ok(look)
    }
}

/// Whether this user may look into the state folder. One that is not there can be looked into: there is nothing. To be asked
/// before anything is said of what is known, or "may not be read" would be told as "nothing is known".
pub(super) fn may_look(state_dir: &Path) -> Result<(), CommandError> {
    // Of the folder itself everybody may know; what is in it takes the right to enter.
    match std::fs::metadata(state_dir.join(".")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_look(state_dir, &error)),
        Ok(_) => Ok(()),
    }
}

fn cannot_look(state_dir: &Path, error: &std::io::Error) -> CommandError {
    let dir = state_dir.display();
    CommandError::unexpected(match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("cannot look into {dir}: permission denied; run it as root or as the user of the service")
        }
        _ => format!("cannot look into {dir}: {error}; set state_dir in the configuration to a folder of its own"),
    })
}

/// Asks the daemon, when one runs. Where that takes a while, a person hears what is being waited for.
pub(super) async fn ask(state_dir: &Path, request: &Request) -> Result<Option<Response>, CommandError> {
    let asked = ask_quietly(state_dir, request);
    tokio::pin!(asked);
    tokio::select! {
        biased;
        response = &mut asked => response,
        () = tokio::time::sleep(SAYS_NOTHING) => {
            tell("the running daemon does it; waiting for it (Ctrl-C ends the waiting, not what the daemon does; torq-connector status shows how it goes)");
            asked.await
        }
    }
}

/// The same for what takes no time.
pub(super) async fn ask_quietly(state_dir: &Path, request: &Request) -> Result<Option<Response>, CommandError> {
    let answered = control::ask(state_dir, request).await;
    answered.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotADirectory => cannot_look(state_dir, &error),
        _ => CommandError::new(Exit::Unavailable, format!("cannot ask the running daemon: {error}")),
    })
}

/// A daemon that works where the configuration says, whatever else is wrong with it: the folder, and the daemon's status. What is
/// wrong is told.
///
/// # Errors
/// What is wrong, when no daemon can be asked.
pub(super) async fn in_spite_of(
    context: &Context,
    problems: CommandError,
) -> Result<(PathBuf, StatusReport), CommandError> {
    let Some(state_dir) = config::state_dir(&context.path, &context.env) else {
        return Err(problems);
    };
    match ask_quietly(&state_dir, &Request::Status).await {
        Ok(Some(Response::Status(report))) => {
            tell(&format!(
                "{}\nThe running daemon goes on by its former configuration.",
                problems.message
            ));
            Ok((state_dir, report))
        }
        _ => Err(problems),
    }
}
