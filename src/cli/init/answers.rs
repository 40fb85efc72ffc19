//! What a connector needs to know: from flags, and for the rest from the person at the terminal. Without one, everything that is
//! missing is told at once.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use jiff::civil::Date;
use secrecy::SecretString;

use super::file::{Target, name_of};
use super::terminal;
use super::{Answers, Given, InitArgs, JumpCloudRegion, TorqRegion};
use crate::cli::{CommandError, Exit, tell};
use crate::model::{ConnectorName, Peer};

/// Who is asked, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Nobody: the flags say all that is needed.
    Nothing,
    /// A person, for what no flag says.
    Missing,
    /// A person who said all of it before, and something of that was wrong.
    Again,
}

/// What is known of the answers before anybody is asked.
struct Known {
    torq_region: Option<TorqRegion>,
    torq_client_id: Option<String>,
    torq_secret: Option<Given>,
    key_expires: Option<Date>,
    jumpcloud_region: Option<JumpCloudRegion>,
    jumpcloud_client_id: Option<String>,
    jumpcloud_secret: Option<Given>,
    /// The secret is an administrator's API key.
    by_key: bool,
    org_id: Option<String>,
}

/// The answers, and whether somebody was asked.
pub(super) fn gather(args: &InitArgs, taken: &[String], target: &Target) -> Result<(Answers, Asks), CommandError> {
    let name = args.name.as_deref().map(|name| free(name, taken)).transpose();
    let name = name.map_err(|problem| CommandError::new(Exit::Usage, format!("--name: {problem}")))?;
    let (torq_told, jumpcloud_told) = told(args)?;
    let missing = missing(args);
    let asks = if missing.is_empty() {
        Asks::Nothing
    } else {
        Asks::Missing
    };
    if asks == Asks::Missing {
        if !std::io::stdin().is_terminal() {
            return Err(absent(&missing));
        }
        tell(&format!(
            "This sets up a connector in {}. Nothing is saved before the end; Ctrl-C leaves everything as it is.\n",
            target.path.display()
        ));
    }
    // Better said now than after all the other questions.
    let unclaimed = |name: ConnectorName| match target.is_there_already(
        &name,
        args.torq_secret_file.is_none(),
        jumpcloud_file(args).is_none(),
    ) {
        Some(file) => Err(format!(
            "{} is there already: take another name, or delete it",
            file.display()
        )),
        None => Ok(name),
    };
    let name = match name {
        Some(name) if asks == Asks::Nothing => name,
        Some(name) => unclaimed(name).map_err(|problem| CommandError::new(Exit::Usage, problem))?,
        None => {
            let usual = if taken.is_empty() { "main" } else { "" };
            terminal::ask("Name of the connector", usual, |text| unclaimed(free(text, taken)?))?
        }
    };
    let known = Known {
        torq_region: args.torq_region,
        torq_client_id: args.torq_client_id.clone(),
        torq_secret: given(args.torq_secret_file.as_ref(), torq_told),
        key_expires: args.key_expires,
        jumpcloud_region: args.jumpcloud_region,
        jumpcloud_client_id: args.jumpcloud_client_id.clone(),
        jumpcloud_secret: given(jumpcloud_file(args), jumpcloud_told),
        by_key: is_by_key(args),
        org_id: args.org_id.clone(),
    };
    Ok((complete(name, known, asks, asks)?, asks))
}

/// Asks again for what belongs to the sides that failed: what was right of that stays, by an empty answer.
pub(super) fn again(before: &Answers, failed: &[Peer]) -> Result<Answers, CommandError> {
    let Answers {
        name,
        torq_region,
        torq_client_id,
        torq_secret,
        key_expires,
        jumpcloud_region,
        jumpcloud_client_id,
        jumpcloud_secret,
        org_id,
    } = before.clone();
    let known = Known {
        torq_region: Some(torq_region),
        torq_client_id: Some(torq_client_id),
        torq_secret: Some(torq_secret),
        key_expires,
        jumpcloud_region: Some(jumpcloud_region),
        by_key: jumpcloud_client_id.is_none(),
        jumpcloud_client_id,
        jumpcloud_secret: Some(jumpcloud_secret),
        org_id,
    };
    let asks = |peer| match failed.contains(&peer) {
        true => Asks::Again,
        false => Asks::Nothing,
    };
    complete(name, known, asks(Peer::Torq), asks(Peer::JumpCloud))
}

const TORQ_SECRET: &str = "--torq-secret-file or --torq-secret-stdin";
const JUMPCLOUD_SECRET: &str = "--jumpcloud-client-id with --jumpcloud-secret-file or --jumpcloud-secret-stdin, or --jumpcloud-api-key-file or \
     --jumpcloud-api-key-stdin";

/// Which flags would be needed, were nobody there to be asked.
fn missing(args: &InitArgs) -> Vec<&'static str> {
    let has_jumpcloud = jumpcloud_file(args).is_some() || args.jumpcloud_secret_stdin || args.jumpcloud_api_key_stdin;
    [
        (args.name.is_some(), "--name"),
        (args.torq_region.is_some(), "--torq-region"),
        (args.torq_client_id.is_some(), "--torq-client-id"),
        (args.torq_secret_file.is_some() || args.torq_secret_stdin, TORQ_SECRET),
        (args.jumpcloud_region.is_some(), "--jumpcloud-region"),
        (
            has_jumpcloud && (is_by_key(args) || args.jumpcloud_client_id.is_some()),
            JUMPCLOUD_SECRET,
        ),
    ]
    .into_iter()
    .filter(|(there, _)| !there)
    .map(|(_, flag)| flag)
    .collect()
}

fn absent(missing: &[&str]) -> CommandError {
    CommandError::new(
        Exit::Usage,
        format!(
            "there is no terminal to ask on, and missing are:\n  {}\nNothing is saved.",
            missing.join("\n  ")
        ),
    )
}

fn is_by_key(args: &InitArgs) -> bool {
    args.jumpcloud_api_key_file.is_some() || args.jumpcloud_api_key_stdin
}

fn jumpcloud_file(args: &InitArgs) -> Option<&PathBuf> {
    args.jumpcloud_secret_file
        .as_ref()
        .or(args.jumpcloud_api_key_file.as_ref())
}

/// The secrets that come by standard input, a line each: Torq's first.
fn told(args: &InitArgs) -> Result<(Option<SecretString>, Option<SecretString>), CommandError> {
    let line = |wanted: bool, whose: &str| {
        if !wanted {
            return Ok(None);
        }
        let line = terminal::read_line()?.unwrap_or_default();
        match line.trim() {
            "" => Err(CommandError::new(
                Exit::Usage,
                format!("standard input has no line with the secret of {whose}; nothing is saved"),
            )),
            secret => Ok(Some(SecretString::from(secret))),
        }
    };
    let torq = line(args.torq_secret_stdin, "Torq")?;
    let jumpcloud = line(args.jumpcloud_secret_stdin || args.jumpcloud_api_key_stdin, "JumpCloud")?;
    Ok((torq, jumpcloud))
}

fn given(file: Option<&PathBuf>, told: Option<SecretString>) -> Option<Given> {
    told.map(Given::Told).or_else(|| file.cloned().map(Given::File))
}

/// A name that can be one, and is nobody's yet.
fn free(name: &str, taken: &[String]) -> Result<ConnectorName, String> {
    let parsed = ConnectorName::parse(name.trim())
        .ok_or_else(|| format!("{name:?} cannot be a name: {}", ConnectorName::ALLOWED))?;
    match taken.iter().find(|other| other.eq_ignore_ascii_case(parsed.as_str())) {
        Some(other) if other == parsed.as_str() => Err(format!(
            "the connector {parsed} is configured already; take another name, or change its section by hand (new secrets go into \
             its files, and then: torq-connector reconnect {parsed})"
        )),
        Some(other) => Err(format!(
            "there is a connector {other} already, and names that differ only in capitals would be one in the environment; take another"
        )),
        None => Ok(parsed),
    }
}

fn one_of<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text.trim(), true).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        format!("give one of {}", names.join(", "))
    })
}

fn something(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("this cannot be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// All the answers. Who is asked for what is missing, or for everything again, can differ between the sides.
fn complete(name: ConnectorName, known: Known, of_torq: Asks, of_jumpcloud: Asks) -> Result<Answers, CommandError> {
    let heading = |asks: Asks, text: &str| {
        if asks != Asks::Nothing {
            tell(text);
        }
    };
    let asks = of_torq;
    heading(
        asks,
        "\nTorq: an API key (a service key, best) whose role has user.read.",
    );
    let region = "Region of the workspace (us, eu)";
    let torq_region = needed(known.torq_region, asks, (region, "us"), name_of, one_of)?;
    let torq_client_id = needed(known.torq_client_id, asks, ("Client id", ""), String::clone, something)?;
    let torq_secret = secret(known.torq_secret, asks, "Client secret")?;
    let question = ("Expires on", "YYYY-MM-DD; empty: not known");
    let key_expires = optional(known.key_expires, asks, question, Date::to_string, |text| {
        text.parse().map_err(|_| "give a day such as 2027-03-01".to_owned())
    })?;
    let asks = of_jumpcloud;
    heading(asks, "\nJumpCloud: a service account, or an administrator's API key.");
    let region = "Region of the organisation (us, eu, in)";
    let jumpcloud_region = needed(known.jumpcloud_region, asks, (region, "us"), name_of, one_of)?;
    let jumpcloud_client_id = match known.jumpcloud_client_id {
        None if known.by_key && asks != Asks::Again => None,
        id => {
            let question = ("Client id of the service account", "empty: an API key instead");
            optional(id, asks, question, String::clone, |text| Ok(text.to_owned()))?
        }
    };
    // The secret of one is none of the other.
    let same_kind = known.by_key == jumpcloud_client_id.is_none();
    let question = match jumpcloud_client_id {
        Some(_) => "Client secret",
        None => "API key",
    };
    let jumpcloud_secret = secret(known.jumpcloud_secret.filter(|_| same_kind), asks, question)?;
    let question = ("Organisation id", "only where the credentials manage several");
    let org_id = optional(known.org_id, asks, question, String::clone, |text| Ok(text.to_owned()))?;
    heading(asks, "");
    Ok(Answers {
        name,
        torq_region,
        torq_client_id,
        torq_secret,
        key_expires,
        jumpcloud_region,
        jumpcloud_client_id,
        jumpcloud_secret,
        org_id,
    })
}

/// What there must be: as it is known, or as a person says. The question has a usual answer, or an empty text.
fn needed<T>(
    known: Option<T>,
    asks: Asks,
    (question, usual): (&str, &str),
    show: impl Fn(&T) -> String,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, CommandError> {
    match known {
        Some(known) if asks != Asks::Again => Ok(known),
        known => {
            let usual = known.as_ref().map_or_else(|| usual.to_owned(), show);
            terminal::ask(question, &usual, read)
        }
    }
}

/// The same of what there need not be. The question has a hint.
fn optional<T>(
    known: Option<T>,
    asks: Asks,
    (question, hint): (&str, &str),
    show: impl Fn(&T) -> String,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, CommandError> {
    let read = |text: &str| match text.trim() {
        "" | "-" => Ok(None),
        text => read(text).map(Some),
    };
    match (known, asks) {
        (known, Asks::Nothing) => Ok(known),
        (Some(known), Asks::Missing) => Ok(Some(known)),
        (Some(known), Asks::Again) => terminal::ask(&format!("{question} (-: none)"), &show(&known), read),
        (None, _) => terminal::ask(&format!("{question} ({hint})"), "", read),
    }
}

fn secret(known: Option<Given>, asks: Asks, question: &str) -> Result<Given, CommandError> {
    match known {
        Some(known) if asks != Asks::Again => Ok(known),
        known => terminal::ask_secret(question, known),
    }
}
