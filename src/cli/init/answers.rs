//! What a connector needs to know: from flags, and for the rest from the person at the terminal. Without one, everything that is
//! missing is told at once.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use jiff::civil::Date;
use secrecy::SecretString;

use super::file::Target;
use super::terminal;
use super::{Answers, Given, InitArgs, JumpCloudRegion, TorqRegion};
use crate::cli::{CommandError, Exit};
use crate::model::ConnectorName;

/// The answers, and whether somebody was asked.
pub(super) fn gather(args: &InitArgs, taken: &[String], target: &Target) -> Result<(Answers, bool), CommandError> {
    let name = args.name.as_deref().map(|name| free(name, taken)).transpose();
    let name = name.map_err(|problem| CommandError::new(Exit::Usage, format!("--name: {problem}")))?;
    let (torq_told, jumpcloud_told) = told(args)?;
    let missing = missing(args);
    if missing.is_empty() {
        let answers = Answers {
            name: match name {
                Some(name) => name,
                None => return Err(absent(&["--name"])),
            },
            torq_region: args.torq_region.unwrap_or(TorqRegion::Us),
            torq_client_id: args.torq_client_id.clone().unwrap_or_default(),
            torq_secret: given(args.torq_secret_file.as_ref(), torq_told).ok_or_else(|| absent(&[TORQ_SECRET]))?,
            key_expires: args.key_expires,
            jumpcloud_region: args.jumpcloud_region.unwrap_or(JumpCloudRegion::Us),
            jumpcloud_client_id: args.jumpcloud_client_id.clone(),
            jumpcloud_secret: given(jumpcloud_file(args), jumpcloud_told).ok_or_else(|| absent(&[JUMPCLOUD_SECRET]))?,
            org_id: args.org_id.clone(),
        };
        return Ok((answers, false));
    }
    if !std::io::stdin().is_terminal() {
        return Err(absent(&missing));
    }
    ask(args, name, (torq_told, jumpcloud_told), taken, target).map(|answers| (answers, true))
}

const TORQ_SECRET: &str = "--torq-secret-file or --torq-secret-stdin";
const JUMPCLOUD_SECRET: &str = "--jumpcloud-client-id with --jumpcloud-secret-file or --jumpcloud-secret-stdin, or --jumpcloud-api-key-file or \
     --jumpcloud-api-key-stdin";

/// Which flags would be needed, were nobody there to be asked.
fn missing(args: &InitArgs) -> Vec<&'static str> {
    let has_jumpcloud = jumpcloud_file(args).is_some() || args.jumpcloud_secret_stdin || args.jumpcloud_api_key_stdin;
    let by_key = args.jumpcloud_api_key_file.is_some() || args.jumpcloud_api_key_stdin;
    [
        (args.name.is_some(), "--name"),
        (args.torq_region.is_some(), "--torq-region"),
        (args.torq_client_id.is_some(), "--torq-client-id"),
        (args.torq_secret_file.is_some() || args.torq_secret_stdin, TORQ_SECRET),
        (args.jumpcloud_region.is_some(), "--jumpcloud-region"),
        (
            has_jumpcloud && (by_key || args.jumpcloud_client_id.is_some()),
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
    match taken.iter().any(|other| other == parsed.as_str()) {
        true => Err(format!(
            "the connector {parsed} is configured already; take another name, or change its section by hand (new secrets go into \
             its files, and then: torq-connector reconnect {parsed})"
        )),
        false => Ok(parsed),
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

fn perhaps(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn ask(
    args: &InitArgs,
    name: Option<ConnectorName>,
    (torq_told, jumpcloud_told): (Option<SecretString>, Option<SecretString>),
    taken: &[String],
    target: &Target,
) -> Result<Answers, CommandError> {
    crate::cli::tell(&format!(
        "This sets up a connector in {}. Nothing is saved before the end; Ctrl-C leaves everything as it is.\n",
        target.path.display()
    ));
    let usual = if taken.is_empty() { "main" } else { "" };
    let name = match name {
        Some(name) => name,
        None => terminal::ask("Name of the connector", usual, |text| free(text, taken))?,
    };
    crate::cli::tell("\nTorq: an API key (a service key, best) whose role has user.read.");
    let torq_region = match args.torq_region {
        Some(region) => region,
        None => terminal::ask("Region of the workspace (us, eu)", "us", one_of)?,
    };
    let torq_client_id = match &args.torq_client_id {
        Some(id) => id.clone(),
        None => terminal::ask("Client id", "", something)?,
    };
    let torq_secret = match given(args.torq_secret_file.as_ref(), torq_told) {
        Some(secret) => secret,
        None => Given::Told(terminal::ask_secret("Client secret")?),
    };
    let key_expires = match args.key_expires {
        Some(day) => Some(day),
        None => terminal::ask("Expires on (YYYY-MM-DD; empty: not known)", "", |text| {
            let day = perhaps(text)?.map(|day| day.parse::<Date>());
            day.transpose().map_err(|_| "give a day such as 2027-03-01".to_owned())
        })?,
    };
    crate::cli::tell("\nJumpCloud: a service account, or an administrator's API key.");
    let jumpcloud_region = match args.jumpcloud_region {
        Some(region) => region,
        None => terminal::ask("Region of the organisation (us, eu, in)", "us", one_of)?,
    };
    let by_key = args.jumpcloud_api_key_file.is_some() || args.jumpcloud_api_key_stdin;
    let jumpcloud_client_id = match &args.jumpcloud_client_id {
        Some(id) => Some(id.clone()),
        None if by_key => None,
        None => terminal::ask(
            "Client id of the service account (empty: an API key instead)",
            "",
            perhaps,
        )?,
    };
    let jumpcloud_secret = match (given(jumpcloud_file(args), jumpcloud_told), &jumpcloud_client_id) {
        (Some(secret), _) => secret,
        (None, Some(_)) => Given::Told(terminal::ask_secret("Client secret")?),
        (None, None) => Given::Told(terminal::ask_secret("API key")?),
    };
    let org_id = match &args.org_id {
        Some(id) => Some(id.clone()),
        None => terminal::ask(
            "Organisation id (only where the credentials manage several)",
            "",
            perhaps,
        )?,
    };
    crate::cli::tell("");
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
