//! The walker: goes through the merged values, tells everything that is wrong with them, and makes a [`Config`]
//! when nothing is. (serde would stop at the first error.) Connectors have a file of their own, `connector`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ::config::ValueKind;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::read::Table;
use super::value::{Given, shown_text};
use super::{
    Authorities, Config, Http, Log, LogFormat, Network, Problem, Secret, SecretSource, environment, keys, secret,
};

pub(super) use super::value::kind_of;

/// What the meaning of values depends on besides the values.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// What relative paths are relative to.
    pub(super) dir: &'a Path,
    /// The configuration file, where it is known.
    pub(super) file: Option<&'a Path>,
    /// The mode of the configuration file, where it is known.
    pub(super) file_mode: Option<u32>,
    /// The environment, for what systemd says there.
    pub(super) env: &'a BTreeMap<String, String>,
    /// Which secrets are read.
    pub(super) secrets: Secrets<'a>,
}

/// Which secrets are read, and what becomes of a file that cannot be.
#[derive(Clone, Copy)]
pub(super) enum Secrets<'a> {
    /// None, and no other file either: for commands that only look at the state or talk to the daemon.
    None,
    /// Those of these connectors, or of all where none is named; `page`: that of the status page, too.
    Of { names: &'a [String], page: bool },
    /// All. A connector whose secret's file cannot be read is no reason for the others not to run: see [`Secret::problem`].
    ToRun,
}

impl Secrets<'_> {
    fn of_connector(self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Of { names, .. } => names.is_empty() || names.iter().any(|one| one == name),
            Self::ToRun => true,
        }
    }

    fn of_page(self) -> bool {
        match self {
            Self::None => false,
            Self::Of { page, .. } => page,
            Self::ToRun => true,
        }
    }
}

/// Stands for a value that is wrong or missing: it has been told, go on and look for more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told;

/// A checked value, or one whose problem is among the problems.
pub(super) type Checked<T> = Result<T, Told>;

/// Checks the merged values, and says what they are as far as they are good, and everything that is wrong. `in_file` are the connectors that the file names, `problems` are those found before, `broken` the keys where the file has something else
/// than the section that belongs there.
pub(super) fn check(
    table: &Table,
    in_file: &BTreeSet<String>,
    surroundings: Surroundings<'_>,
    problems: Vec<Problem>,
    broken: Vec<String>,
) -> (Option<Config>, Vec<Problem>) {
    let mut walker = Walker {
        surroundings,
        problems,
        broken,
        in_file: in_file.clone(),
        reads_secrets: false,
    };
    let config = walker.config(&Section::root(table)).ok();
    (config, walker.problems)
}

/// Only where the state is.
pub(super) fn state_dir(table: &Table, surroundings: Surroundings<'_>) -> Option<PathBuf> {
    let mut walker = Walker {
        surroundings,
        problems: Vec::new(),
        broken: Vec::new(),
        in_file: BTreeSet::new(),
        reads_secrets: false,
    };
    walker.state_dir(&Section::root(table)).ok()
}

/// A section of the merged values; one that is not there is an empty one.
pub(super) struct Section<'a> {
    /// Its key, empty for the outermost.
    pub(super) key: String,
    /// What variables of the environment that set something in it begin with.
    variable: String,
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    fn root(table: &'a Table) -> Self {
        Self {
            key: String::new(),
            variable: String::new(),
            table: Some(table),
        }
    }

    /// The section `name` in this one.
    pub(super) fn section(&self, name: &str) -> Section<'a> {
        let value = self.table.and_then(|table| table.get(name));
        Section {
            key: keys::join(&self.key, &keys::quoted(name)),
            variable: environment::variable(&self.variable, name),
            table: match value.map(|value| &value.kind) {
                Some(ValueKind::Table(table)) => Some(table),
                _ => None,
            },
        }
    }

    /// The names in this section, sorted.
    pub(super) fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self
            .table
            .into_iter()
            .flat_map(|table| table.keys().map(String::as_str))
            .collect();
        names.sort_unstable();
        names
    }

    /// Where a value below this section comes from, if one comes from the environment.
    pub(super) fn variable_below(&self) -> Option<&'a str> {
        fn find(table: &Table) -> Option<&str> {
            let mut names: Vec<_> = table.keys().collect();
            names.sort();
            names
                .into_iter()
                .filter_map(|name| table.get(name))
                .find_map(|value| match &value.kind {
                    ValueKind::Table(inner) => find(inner),
                    _ => value.origin().filter(|_| environment::is_origin_of(value)),
                })
        }
        find(self.table?)
    }

    /// The value of `name`, if it is given or has a default.
    pub(super) fn get(&self, name: &str) -> Option<Given<'a>> {
        let value = self.table?.get(name)?;
        Some(Given {
            key: keys::join(&self.key, name),
            value,
        })
    }

    /// Whether `name` is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether `name` is given in the environment.
    pub(super) fn has_from_environment(&self, name: &str) -> bool {
        self.get(name).is_some_and(|given| given.is_from_environment())
    }
}

/// Walks and collects.
pub(super) struct Walker<'a> {
    pub(super) surroundings: Surroundings<'a>,
    pub(super) problems: Vec<Problem>,
    broken: Vec<String>,
    /// The names of the connectors that have a section in the file.
    pub(super) in_file: BTreeSet<String>,
    /// Whether the secrets of the connector that is being looked at are read.
    pub(super) reads_secrets: bool,
}

impl Walker<'_> {
    /// Tells a problem.
    pub(super) fn tell(&mut self, problem: Problem) -> Told {
        self.problems.push(problem);
        Told
    }

    /// Takes a value, or tells what is wrong with it.
    pub(super) fn take<T>(&mut self, result: Result<T, Problem>) -> Checked<T> {
        result.map_err(|problem| self.tell(problem))
    }

    /// Tells that `name` is missing, unless its section was told to be none.
    pub(super) fn missing(&mut self, section: &Section<'_>, name: &str, message: &str) -> Told {
        if self.is_broken(&section.key) {
            return Told;
        }
        let variable = environment::variable(&section.variable, name);
        self.tell(Problem::new(
            keys::join(&section.key, name),
            format!("missing: {message} (or set the environment variable {variable})"),
        ))
    }

    /// Whether something stood in the file in the place of this section, or of one around it.
    pub(super) fn is_broken(&self, section: &str) -> bool {
        self.broken.iter().any(|broken| {
            let rest = section.strip_prefix(broken.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// A value that may be left out.
    pub(super) fn optional<'s, T>(
        &mut self,
        section: &Section<'s>,
        name: &str,
        read: impl FnOnce(&Given<'s>) -> Result<T, Problem>,
    ) -> Checked<Option<T>> {
        match section.get(name) {
            Some(given) => self.take(read(&given)).map(Some),
            None => Ok(None),
        }
    }

    /// A value that must be there, by default or by hand. `what` it is ends the sentence "missing: give …".
    pub(super) fn required<'s, T>(
        &mut self,
        section: &Section<'s>,
        name: &str,
        what: &str,
        read: impl FnOnce(&Given<'s>) -> Result<T, Problem>,
    ) -> Checked<T> {
        match self.optional(section, name, read)? {
            Some(value) => Ok(value),
            None => Err(self.missing(section, name, &format!("give {what}"))),
        }
    }

    /// A list, each item of which is read by itself; the error of `read` says what is allowed.
    pub(super) fn list(
        &mut self,
        section: &Section<'_>,
        name: &str,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Checked<Vec<String>> {
        let Some(given) = section.get(name) else {
            return Ok(Vec::new());
        };
        let items = self.take(given.items())?;
        let (mut list, mut wrong) = (Vec::new(), Vec::new());
        for item in items {
            match read(item) {
                Ok(item) if list.contains(&item) => {}
                Ok(item) => list.push(item),
                Err(message) => {
                    let found = shown_text(item);
                    // What stands there twice, or looks as if it did, is told once.
                    if !wrong.contains(&found) {
                        self.tell(given.wrong(message).found(found.clone()));
                        wrong.push(found);
                    }
                }
            }
        }
        if wrong.is_empty() { Ok(list) } else { Err(Told) }
    }

    /// Decides whether the secrets of this connector are read.
    pub(super) fn begin_connector(&mut self, name: &str) {
        self.reads_secrets = self.surroundings.secrets.of_connector(name);
    }

    /// A connector's secret from a file.
    pub(super) fn connector_secret_file(&mut self, given: &Given<'_>) -> Checked<Secret> {
        let name = self.take(given.path())?;
        let secret = self.secret_in_file(name);
        match (secret, self.surroundings.secrets) {
            (Err((message, path)), Secrets::ToRun) => Ok(Secret::unreadable(path, given.wrong(message))),
            (secret, _) => self.take(secret.map_err(|(message, _)| given.wrong(message))),
        }
    }

    /// The secret in the file of this name; why there is none, and the file that was looked for.
    fn secret_in_file(&self, name: &str) -> Result<Secret, (String, PathBuf)> {
        let credentials = self.surroundings.env.get("CREDENTIALS_DIRECTORY");
        let credentials = credentials.filter(|dir| !dir.is_empty()).map(Path::new);
        let path = secret::locate(name, self.surroundings.dir, credentials)?;
        match secret::from_file(&path) {
            Ok(secret) => Ok(Secret {
                fixed: credentials.is_some_and(|dir| path.starts_with(dir)),
                ..secret
            }),
            Err(message) => Err((message, path)),
        }
    }

    /// The password of the status page.
    fn password_file(&mut self, given: &Given<'_>) -> Checked<Secret> {
        if !self.surroundings.secrets.of_page() {
            return Ok(Secret::unread());
        }
        let name = self.take(given.path())?;
        let secret = self.secret_in_file(name);
        self.take(secret.map_err(|(message, _)| given.wrong(message)))
    }

    /// A secret that is written in the configuration or the environment.
    pub(super) fn literal_secret(&mut self, given: &Given<'_>) -> Checked<Secret> {
        let ValueKind::String(text) = &given.value.kind else {
            return Err(self.tell(given.secretly_refused("must be a string, in quotes")));
        };
        let source = if given.is_from_environment() {
            SecretSource::Environment
        } else {
            SecretSource::Literal
        };
        let fit = secret::vet(text).map_err(|message| given.wrong(message));
        let fit = self.take(fit);
        if source == SecretSource::Literal {
            self.refuse_in_open_file(given)?;
        }
        fit.map(|()| Secret::new(text.as_str(), source))
    }

    pub(super) fn refuse_in_open_file(&mut self, given: &Given<'_>) -> Checked<()> {
        match self.surroundings.file_mode.map(|mode| mode & 0o7777) {
            Some(mode) if mode & 0o004 != 0 => {
                let file = match self.surroundings.file {
                    Some(file) => file.display().to_string(),
                    None => "FILE".to_owned(),
                };
                Err(self.tell(given.wrong(format!(
                    "every user of this machine can read this secret in the configuration file (mode {mode:04o}); \
                     run `chmod 600 {file}`, or move the secret to a file of its own and name that in {}_file",
                    given.key
                ))))
            }
            _ => Ok(()),
        }
    }

    fn config(&mut self, root: &Section<'_>) -> Checked<Config> {
        let state_dir = self.state_dir(root);
        let log = self.log(&root.section("log"));
        let http = self.http(&root.section("http"));
        let network = self.network(&root.section("network"));
        let connectors = self.connectors(&root.section("connectors"));
        Ok(Config {
            state_dir: state_dir?,
            log: log?,
            http: http?,
            network: network?,
            connectors: connectors?,
        })
    }

    /// As given, else where systemd keeps state for the unit, else the usual place.
    fn state_dir(&mut self, root: &Section<'_>) -> Checked<PathBuf> {
        let given = self.optional(root, "state_dir", Given::path)?;
        let from_systemd = self
            .surroundings
            .env
            .get("STATE_DIRECTORY")
            .and_then(|list| list.split(':').next())
            .filter(|first| !first.is_empty());
        let state_dir = given.or(from_systemd).unwrap_or("/var/lib/torq-connector");
        Ok(self.surroundings.dir.join(state_dir))
    }

    fn log(&mut self, section: &Section<'_>) -> Checked<Log> {
        let level = self.required(section, "level", "a level", log_level);
        let format = self.required(section, "format", "a format", |given| {
            given.one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
        });
        Ok(Log {
            level: level?,
            format: format?,
        })
    }

    fn http(&mut self, section: &Section<'_>) -> Checked<Http> {
        let listen = self.required(section, "listen", "an address", |given| {
            let allowed = "an IP address and a port, such as \"127.0.0.1:8686\" or \"[::1]:8686\", or \"off\"";
            match given.text(allowed)?.trim() {
                "off" => Ok(None),
                address => address
                    .parse()
                    .map(Some)
                    .map_err(|_| given.refused(format!("must be {allowed}"))),
            }
        });
        let password = match section.get("password_file") {
            Some(given) => self.password_file(&given).map(Some),
            None => Ok(None),
        };
        let hosts = self.list(section, "hosts", |item| {
            host_name(item)
                .ok_or_else(|| "must be names without scheme and port, such as \"connector.example.com\"".to_owned())
        });
        Ok(Http {
            listen: listen?,
            password: password?,
            hosts: hosts?,
        })
    }

    fn network(&mut self, section: &Section<'_>) -> Checked<Network> {
        let ca_file = self.ca_file(section);
        let mut time = |name| self.required(section, name, "a duration", |given| given.duration("1s", "10m"));
        let connect_timeout = time("connect_timeout");
        let timeout = time("timeout");
        Ok(Network {
            ca_file: ca_file?,
            connect_timeout: connect_timeout?,
            timeout: timeout?,
        })
    }

    fn ca_file(&mut self, section: &Section<'_>) -> Checked<Option<Authorities>> {
        let Some(given) = section.get("ca_file") else {
            return Ok(None);
        };
        let path = self.take(given.path())?;
        let path = self.surroundings.dir.join(path);
        if matches!(self.surroundings.secrets, Secrets::None) {
            return Ok(Some(Authorities::unread(path)));
        }
        match Authorities::read(path) {
            Ok(authorities) => Ok(Some(authorities)),
            Err(message) => Err(self.tell(given.wrong(message))),
        }
    }
}

/// A level or a filter. A single word that is no level would be taken for a crate's name and silence everything else.
fn log_level(given: &Given<'_>) -> Result<String, Problem> {
    let allowed = "error, warn, info, debug, trace or off, or a filter such as \"info,torq_connector=debug\"";
    let text = given.text(allowed)?.trim();
    let wrong = || given.refused(format!("must be {allowed}"));
    let single_word = !text.contains(['=', ',', '[', ':']);
    if single_word && text.parse::<LevelFilter>().is_err() {
        return Err(wrong());
    }
    // A value of a field is meant as it is: as a regular expression, a few dots would take minutes to compile.
    EnvFilter::builder()
        .with_regex(false)
        .parse(text)
        .map_err(|_| wrong())?;
    Ok(text.to_owned())
}

/// A DNS name, folded; `None` when it is not one.
pub(super) fn host_name(text: &str) -> Option<String> {
    let name = text.trim().to_lowercase();
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}
