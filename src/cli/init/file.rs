//! The configuration as a file: what is in it, and the section that is added. What is there stays as it is, byte by byte.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use secrecy::{ExposeSecret, SecretString};

use super::{Answers, Given, InitArgs};
use crate::cli::{CommandError, Context, Exit};
use crate::config;
use crate::model::ConnectorName;

/// The configuration file that is written to.
pub(super) struct Target {
    pub(super) path: PathBuf,
    /// What is in it; `None`: it is not there.
    pub(super) text: Option<String>,
    /// Its mode; that of a new one has no secret in it.
    pub(super) mode: u32,
    /// No connector is in it yet.
    pub(super) first: bool,
}

/// The secrets that are told and not named: Torq's, that of a service account, an administrator's.
const SECRETS: [&str; 3] = ["torq_client_secret", "jumpcloud_client_secret", "jumpcloud_api_key"];

/// A new file's mode: no secret is in it, and the service's user must be able to read it.
const MODE: u32 = 0o644;

impl Target {
    /// Looks at the file, and whether it can be written.
    pub(super) fn look(path: &Path) -> Result<Self, CommandError> {
        let path = std::path::absolute(path).map_err(CommandError::unexpected)?;
        let failed = |error: std::io::Error| {
            CommandError::unexpected(format!(
                "{} cannot be written: {error}; name another file with --config FILE, or run it as root",
                path.display()
            ))
        };
        let (text, mode) = match fs::read_to_string(&path) {
            Ok(text) => {
                // Opened to be written, and not written.
                OpenOptions::new().append(true).open(&path).map_err(failed)?;
                let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
                (Some(text), mode)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folders = path.ancestors().skip(1);
                let folder = folders
                    .into_iter()
                    .find(|folder| folder.exists())
                    .unwrap_or(Path::new("/"));
                let usable = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
                rustix::fs::access(folder, usable).map_err(|error| failed(error.into()))?;
                (None, MODE)
            }
            Err(error) => return Err(failed(error)),
        };
        let first = text.is_none();
        Ok(Self {
            path,
            text,
            mode,
            first,
        })
    }

    /// The connectors that are in it already.
    pub(super) fn names(&self, context: &Context) -> Result<Vec<String>, CommandError> {
        if self.text.as_ref().is_none_or(|text| text.trim().is_empty()) {
            return Ok(Vec::new());
        }
        match config::load_without_secrets(&self.path, &context.env) {
            Ok(config) => Ok(config.connectors.iter().map(|one| one.name.to_string()).collect()),
            // One without any connector is complete with this one.
            Err(_) if !self.mentions_connectors() => Ok(Vec::new()),
            Err(problems) => Err(context.problems(&problems)),
        }
    }

    fn mentions_connectors(&self) -> bool {
        let lines = self.text.iter().flat_map(|text| text.lines());
        lines
            .map(str::trim_start)
            .any(|line| !line.starts_with('#') && line.contains("connectors"))
    }

    /// A file into which a secret of a connector with this name would go, and which is there already. `torq`, `jumpcloud`: whose
    /// secret would be told and not named.
    pub(super) fn is_there_already(&self, name: &ConnectorName, torq: bool, jumpcloud: bool) -> Option<PathBuf> {
        let told = [torq, jumpcloud, jumpcloud];
        let files = SECRETS.iter().zip(told).filter(|(_, told)| *told);
        files
            .map(|(what, _)| self.folder().join(self.secret_file(name, what)))
            .find(|file| file.symlink_metadata().is_ok())
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The file of a secret that is told. Those of the first connector are called as the systemd unit, the image and the
    /// documentation call them.
    fn secret_file(&self, name: &ConnectorName, what: &str) -> String {
        if self.first {
            what.to_owned()
        } else {
            format!("{name}_{what}")
        }
    }
}

/// What is to be written.
pub(super) struct Draft {
    /// What is added to the configuration.
    section: String,
    /// Secrets and the files that they go into.
    secrets: Vec<(PathBuf, SecretString)>,
}

impl Draft {
    pub(super) fn of(answers: &Answers, args: &InitArgs, target: &Target) -> Result<Self, CommandError> {
        let mut secrets = Vec::new();
        let mut place = |given: &Given, what: &str| -> Result<String, CommandError> {
            match given {
                Given::Told(secret) => {
                    let file = target.secret_file(&answers.name, what);
                    let path = target.folder().join(&file);
                    if path.symlink_metadata().is_ok() {
                        return Err(is_there(&path));
                    }
                    secrets.push((path, secret.clone()));
                    Ok(file)
                }
                Given::File(path) => {
                    let path = std::path::absolute(path).map_err(CommandError::unexpected)?;
                    Ok(path.display().to_string())
                }
            }
        };
        let [torq, jumpcloud, api_key] = SECRETS;
        let torq_secret = place(&answers.torq_secret, torq)?;
        let (jumpcloud_key, what) = match answers.jumpcloud_client_id {
            Some(_) => ("client_secret_file", jumpcloud),
            None => ("api_key_file", api_key),
        };
        let jumpcloud_secret = place(&answers.jumpcloud_secret, what)?;
        let table = answers.name.table();
        let mut section = String::new();
        if let Some(dir) = &args.state_dir {
            let dir = std::path::absolute(dir).map_err(CommandError::unexpected)?;
            section += &format!("state_dir = {}\n\n", quoted(&dir.display().to_string()));
        }
        section += &format!("[{table}]\n\n[{table}.torq]\n");
        let mut set = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                section += &format!("{key} = {}\n", quoted(value));
            }
        };
        set("region", Some(&name_of(&answers.torq_region)));
        set("client_id", Some(&answers.torq_client_id));
        set("client_secret_file", Some(&torq_secret));
        set("api_url", args.torq_api_url.as_deref());
        set("token_url", args.torq_token_url.as_deref());
        if let Some(day) = answers.key_expires {
            section += &format!("key_expires = {day}\n");
        }
        section += &format!("\n[{table}.jumpcloud]\n");
        let mut set = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                section += &format!("{key} = {}\n", quoted(value));
            }
        };
        set("region", Some(&name_of(&answers.jumpcloud_region)));
        set("client_id", answers.jumpcloud_client_id.as_deref());
        set(jumpcloud_key, Some(&jumpcloud_secret));
        set("org_id", answers.org_id.as_deref());
        set("console_url", args.jumpcloud_console_url.as_deref());
        set("token_url", args.jumpcloud_token_url.as_deref());
        Ok(Self { section, secrets })
    }

    /// What is added, set apart from what is there.
    fn addition(&self, target: &Target) -> String {
        match &target.text {
            Some(text) if text.is_empty() => self.section.clone(),
            Some(text) if text.ends_with('\n') => format!("\n{}", self.section),
            Some(_) => format!("\n\n{}", self.section),
            None => format!(
                "# Every other setting, explained: config/torq-connector.toml of torq-connector's source, and docs there.\n\n{}",
                self.section
            ),
        }
    }

    /// The configuration as it would be.
    pub(super) fn whole(&self, target: &Target) -> String {
        target.text.clone().unwrap_or_default() + &self.addition(target)
    }

    /// The files with secrets that saving makes.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.secrets.iter().map(|(path, _)| path.as_path())
    }

    /// Writes it: the secrets first, so that the configuration never names what is not there. What fails leaves nothing behind.
    pub(super) fn save(&self, target: &Target) -> Result<(), CommandError> {
        let folder = target.folder();
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|error| cannot(folder, &error))?;
        let mut written: Vec<&Path> = Vec::new();
        let saved = self.secrets.iter().try_for_each(|(path, secret)| {
            let mut file = create(path, 0o600)?;
            written.push(path);
            let text = format!("{}\n", secret.expose_secret());
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| cannot(path, &error))
        });
        let saved = saved.and_then(|()| self.save_section(target));
        if saved.is_err() {
            for path in written {
                let _ = fs::remove_file(path);
            }
        }
        saved
    }

    fn save_section(&self, target: &Target) -> Result<(), CommandError> {
        let path = &target.path;
        let failed = |error: std::io::Error| cannot(path, &error);
        let addition = self.addition(target);
        let mut file = match &target.text {
            None => create(path, MODE)?,
            Some(text) => {
                if fs::read_to_string(path).map_err(failed)? != *text {
                    let words = format!("{} was changed meanwhile: nothing is saved; repeat it", path.display());
                    return Err(CommandError::new(Exit::Usage, words));
                }
                // Its owner, its mode and whatever points to it stay as they are.
                OpenOptions::new().append(true).open(path).map_err(failed)?
            }
        };
        let written = file.write_all(addition.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            match &target.text {
                Some(text) => drop(file.set_len(text.len() as u64)),
                None => drop(fs::remove_file(path)),
            }
        }
        written.map_err(failed)
    }
}

fn create(path: &Path, mode: u32) -> Result<File, CommandError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(path),
        _ => cannot(path, &error),
    })
}

fn is_there(path: &Path) -> CommandError {
    let path = path.display();
    CommandError::new(
        Exit::Usage,
        format!(
            "{path} is there already, and nothing is overwritten: delete it, or name it with --…-file; nothing is saved"
        ),
    )
}

fn cannot(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::unexpected(format!("cannot write {}: {error}; nothing is saved", path.display()))
}

/// A choice as it is typed and written.
pub(super) fn name_of(value: &impl ValueEnum) -> String {
    let named = value.to_possible_value();
    named.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_typed_is_one_toml_string() {
        for text in [
            "plain",
            "a \"quote\"",
            "back\\slash",
            "tab\tand\nline",
            "Ægir ✓",
            "\u{7f}",
        ] {
            let document = format!("key = {}", quoted(text));
            let table = toml::de::DeTable::parse(&document).unwrap();
            let value = table.get_ref().get("key").unwrap().get_ref();
            assert_eq!(value.as_str(), Some(text));
        }
    }
}
