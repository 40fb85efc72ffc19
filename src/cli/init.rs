//! `init`: sets a connector up. Asks for what it needs, or takes it from flags; tests it (*Connect*: the steps of `check`), and puts
//! it into the configuration (*Save*), with its secrets in files of their own. What does not pass the test is not saved, unless
//! a person says so.

mod answers;
mod beside;
mod file;
mod terminal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use jiff::civil::Date;
use secrecy::{ExposeSecret, SecretString};

use self::answers::Asks;
use super::logging::{self, Who};
use super::{CommandError, Context, Exit, check, tell};
use crate::config::{self, Config, JumpCloudCredentials, SecretSource, variable_of};
use crate::model::ConnectorName;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The connector's name: what it is called in the configuration, in commands and in files.
    #[arg(long)]
    name: Option<String>,
    /// Where the Torq workspace is.
    #[arg(long, value_enum)]
    torq_region: Option<TorqRegion>,
    /// The client id of the Torq API key.
    #[arg(long, value_name = "ID")]
    torq_client_id: Option<String>,
    /// A file with the client secret of the Torq API key, which the configuration will name.
    #[arg(long, value_name = "FILE", conflicts_with = "torq_secret_stdin")]
    torq_secret_file: Option<PathBuf>,
    /// Read the client secret of the Torq API key from standard input: its first line.
    #[arg(long, action = ArgAction::SetTrue)]
    torq_secret_stdin: bool,
    /// When the Torq API key expires: warned of two weeks ahead.
    #[arg(long, value_name = "YYYY-MM-DD")]
    key_expires: Option<Date>,
    /// Where the JumpCloud organisation is.
    #[arg(long, value_enum)]
    jumpcloud_region: Option<JumpCloudRegion>,
    /// The client id of the JumpCloud service account.
    #[arg(long, value_name = "ID", conflicts_with_all = ["jumpcloud_api_key_file", "jumpcloud_api_key_stdin"])]
    jumpcloud_client_id: Option<String>,
    /// A file with the client secret of the service account, which the configuration will name.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jumpcloud_secret_stdin", "jumpcloud_api_key_file", "jumpcloud_api_key_stdin"])]
    jumpcloud_secret_file: Option<PathBuf>,
    /// Read the client secret of the service account from standard input: its first line, or the second after Torq's.
    #[arg(long, action = ArgAction::SetTrue, conflicts_with_all = ["jumpcloud_api_key_file", "jumpcloud_api_key_stdin"])]
    jumpcloud_secret_stdin: bool,
    /// Instead of a service account: a file with an administrator's API key.
    #[arg(long, value_name = "FILE", conflicts_with = "jumpcloud_api_key_stdin")]
    jumpcloud_api_key_file: Option<PathBuf>,
    /// Read the administrator's API key from standard input.
    #[arg(long, action = ArgAction::SetTrue)]
    jumpcloud_api_key_stdin: bool,
    /// The id of the organisation, where the credentials manage several.
    #[arg(long, value_name = "ID")]
    org_id: Option<String>,
    /// Where what is known is kept; only for a new configuration.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Another address of Torq's API than the region's.
    #[arg(long, value_name = "URL", hide_short_help = true)]
    torq_api_url: Option<String>,
    /// Another address of Torq's tokens than the region's.
    #[arg(long, value_name = "URL", hide_short_help = true)]
    torq_token_url: Option<String>,
    /// Another address of JumpCloud's console than the region's.
    #[arg(long, value_name = "URL", hide_short_help = true)]
    jumpcloud_console_url: Option<String>,
    /// Another address of JumpCloud's tokens than the region's.
    #[arg(long, value_name = "URL", hide_short_help = true)]
    jumpcloud_token_url: Option<String>,
    /// Save without testing; nothing is sent.
    #[arg(long, conflicts_with = "save_anyway")]
    no_check: bool,
    /// Test, and save whatever comes of it.
    #[arg(long)]
    save_anyway: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TorqRegion {
    Us,
    Eu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum JumpCloudRegion {
    Us,
    Eu,
    In,
}

/// Where a secret is.
#[derive(Clone, Debug)]
enum Given {
    /// Told just now; it goes into a file of its own.
    Told(SecretString),
    /// In a file that is there.
    File(PathBuf),
}

/// Everything that a connector needs.
#[derive(Clone, Debug)]
struct Answers {
    name: ConnectorName,
    torq_region: TorqRegion,
    torq_client_id: String,
    torq_secret: Given,
    key_expires: Option<Date>,
    jumpcloud_region: JumpCloudRegion,
    /// Of a service account; without one, the secret is an API key.
    jumpcloud_client_id: Option<String>,
    jumpcloud_secret: Given,
    org_id: Option<String>,
}

/// What becomes of answers that did not pass the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Save,
    Again,
    Leave,
}

pub(super) async fn run(context: Context, args: InitArgs) -> Result<Exit, CommandError> {
    let mut target = file::Target::look(&context.path)?;
    let taken = target.names(&context)?;
    target.first = taken.is_empty();
    if args.state_dir.is_some() && target.text.is_some() {
        return Err(CommandError::new(
            Exit::Usage,
            format!("{} is there already: state_dir is set in it", context.path.display()),
        ));
    }
    let (mut answers, asks) = answers::gather(&args, &taken, &target)?;
    let (draft, exit) = loop {
        let draft = file::Draft::of(&answers, &args, &target)?;
        let config = judged(&context, &answers, &target, &draft)?;
        logging::start(&config.log, Who::Command, context.verbose);
        if args.no_check {
            beside::tell_of_others(&config, &answers.name, None);
            break (draft, Exit::Done);
        }
        tell("Testing the connection; nothing is written by that.");
        let check::Connected {
            exit,
            failed,
            application,
        } = check::connect(&config, &answers.name).await?;
        beside::tell_of_others(&config, &answers.name, application.as_ref());
        if exit == Exit::Done || args.save_anyway {
            break (draft, exit);
        }
        let next = match asks {
            Asks::Nothing => Next::Leave,
            Asks::Missing | Asks::Again => terminal::ask_what_next()?,
        };
        match next {
            Next::Save => break (draft, exit),
            Next::Again => answers = answers::again(&answers, &failed)?,
            Next::Leave => {
                tell("Nothing is saved. Put right what failed, and repeat; to save it all the same: --save-anyway");
                return Ok(exit);
            }
        }
    };
    draft.save(&target)?;
    say_what_is_next(&context, &answers, &draft, &target);
    Ok(exit)
}

/// The configuration as it would be, judged as a whole but for the secrets of others.
fn judged(
    context: &Context,
    answers: &Answers,
    target: &file::Target,
    draft: &file::Draft,
) -> Result<Config, CommandError> {
    let mut env: BTreeMap<String, String> = context.env.clone();
    let secrets = [
        ("TORQ__CLIENT_SECRET", &answers.torq_secret),
        (
            match answers.jumpcloud_client_id {
                Some(_) => "JUMPCLOUD__CLIENT_SECRET",
                None => "JUMPCLOUD__API_KEY",
            },
            &answers.jumpcloud_secret,
        ),
    ];
    for (key, given) in secrets {
        // Its file is written only when it is saved; the environment wins over what is said of files.
        if let Given::Told(secret) = given {
            env.insert(variable_of(&answers.name, key), secret.expose_secret().to_owned());
        }
    }
    let names = [answers.name.to_string()];
    let judged = config::parse_for(&draft.whole(target), &target.path, target.mode, &env, &names);
    let mut config = judged.map_err(|problems| {
        CommandError::new(
            Exit::Config,
            format!("with this connector, the configuration would have problems:\n{problems}\nNothing is saved."),
        )
    })?;
    // The variable was only the way here: advice about it would lead nowhere.
    for connector in config.connectors.iter_mut().filter(|one| one.name == answers.name) {
        let of_jumpcloud = match &mut connector.jumpcloud.credentials {
            JumpCloudCredentials::ServiceAccount { client_secret, .. } => client_secret,
            JumpCloudCredentials::ApiKey(key) => key,
        };
        let secrets = [
            (&mut connector.torq.client_secret, &answers.torq_secret),
            (of_jumpcloud, &answers.jumpcloud_secret),
        ];
        for (secret, given) in secrets {
            if let Given::Told(_) = given {
                secret.source = SecretSource::Given;
            }
        }
    }
    Ok(config)
}

fn say_what_is_next(context: &Context, answers: &Answers, draft: &file::Draft, target: &file::Target) {
    let name = &answers.name;
    let what = if target.text.is_some() {
        "added to"
    } else {
        "saved in a new"
    };
    tell(&format!("\n[{}] is {what} {}", name.table(), context.path.display()));
    for file in draft.secret_files() {
        tell(&format!("  a secret is in {} (mode 600)", file.display()));
    }
    if context.path == Path::new(super::DEFAULT_CONFIG) {
        say_how_the_service_gets_them(draft, target.first);
    }
    tell(&format!(
        "Next:\n  torq-connector sync --dry-run {name}   shows what a run would do\n  torq-connector run   is the daemon; one that runs \
         already takes it over with: torq-connector reconnect {name}"
    ));
}

/// The service of the packages runs as a user of its own, and is given what its unit lists: the two secrets of a first connector.
fn say_how_the_service_gets_them(draft: &file::Draft, first: bool) {
    let listed = ["torq_client_secret", "jumpcloud_client_secret"];
    let credential = |file: &Path| Some((file.file_name()?.to_str()?.to_owned(), file.display().to_string()));
    let ours: Vec<_> = draft.secret_files().filter_map(credential).collect();
    if ours.iter().all(|(name, _)| first && listed.contains(&name.as_str())) && ours.len() == listed.len() {
        return;
    }
    // What the unit lists and is not there would keep the service from starting.
    let anew = if first { "\n    LoadCredential=" } else { "" };
    let lines: Vec<_> = ours
        .iter()
        .map(|(name, file)| format!("\n    LoadCredential={name}:{file}"))
        .collect();
    if lines.is_empty() {
        return;
    }
    tell(&format!(
        "For the systemd service, which reads them as root (systemctl edit torq-connector):\n    [Service]{anew}{}",
        lines.concat()
    ));
}
