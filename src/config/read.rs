//! From text to merged values: the file is parsed, its unknown keys are told, and defaults, file and environment
//! are laid over each other. What the values mean is the business of `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ::config::{ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::check::{self, Secrets, Surroundings};
use super::keys::{self, CONNECTOR, GENERAL, Kind};
use super::{Config, Problem, Problems, environment};

/// A table of the merged configuration.
pub(super) type Table = Map<String, Value>;

/// Reads the configuration file at `path` and lays it over the defaults, and `env` over both.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Config, Problems> {
    load_for(path, env, &[])
}

/// [`load`] for a command that works with some connectors: only their secrets are read. Without names, all are, and everything is
/// judged.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_for(path: &Path, env: &BTreeMap<String, String>, names: &[String]) -> Result<Config, Problems> {
    let page = names.is_empty();
    load_with(path, env, Secrets::Of { names, page })
}

/// [`load`] for the daemon: a connector whose secret's file cannot be read must not keep the others from running, so that is
/// told by [`super::Secret::problem`].
///
/// # Errors
/// Everything else that is wrong, at once.
pub fn load_to_run(path: &Path, env: &BTreeMap<String, String>) -> Result<Config, Problems> {
    load_with(path, env, Secrets::ToRun)
}

/// [`load`] for commands that only look at the state or talk to the daemon: no secret is read, for it may be there for the
/// daemon alone (systemd's credentials). Nothing can be sent with such a configuration.
///
/// # Errors
/// Everything else that is wrong, at once.
pub fn load_without_secrets(path: &Path, env: &BTreeMap<String, String>) -> Result<Config, Problems> {
    load_with(path, env, Secrets::None)
}

/// A configuration as far as it can be used: some connectors of it may have problems.
#[derive(Debug)]
pub struct Usable {
    /// With the connectors that have none.
    pub config: Config,
    /// What is wrong with the others; `None`: nothing.
    pub problems: Option<Problems>,
    /// Their names, as keys have them.
    wrong: BTreeSet<String>,
}

impl Usable {
    /// Whether something is wrong with the connector of this name.
    pub fn is_wrong(&self, name: &str) -> bool {
        self.wrong.contains(&keys::quoted(name))
    }

    /// Those with which something is wrong.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.iter().cloned().collect()
    }
}

/// [`load_without_secrets`] for commands that only look at what is known: what is wrong with one connector hides no other.
///
/// # Errors
/// Everything that is wrong, at once, where some of that is about more than single connectors, or about all of them.
pub fn load_usable(path: &Path, env: &BTreeMap<String, String>) -> Result<Usable, Problems> {
    let (config, problems) = judge_file(path, env, Secrets::None)?;
    let wrong: Option<BTreeSet<_>> = problems.iter().map(|problem| connector_of(&problem.key)).collect();
    match (config, wrong) {
        (Some(mut config), Some(wrong)) => {
            let is_good = |connector: &super::Connector| !wrong.contains(&keys::quoted(connector.name.as_str()));
            config.connectors.retain(is_good);
            if config.connectors.is_empty() {
                return Err(Problems(problems));
            }
            Ok(Usable {
                config,
                problems: (!problems.is_empty()).then_some(Problems(problems)),
                wrong,
            })
        }
        _ => Err(Problems(problems)),
    }
}

/// The connector that a key is about, as the key has its name; `None`: it is about more than one.
fn connector_of(key: &str) -> Option<String> {
    let rest = key.strip_prefix("connectors.").filter(|rest| !rest.is_empty())?;
    let end = match rest.strip_prefix('"') {
        None => rest.find('.'),
        Some(inner) => {
            let mut escaped = false;
            let closing = inner.char_indices().find(|(_, c)| {
                let closes = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                closes
            });
            closing.map(|(at, _)| at + 2)
        }
    };
    Some(rest[..end.unwrap_or(rest.len())].to_owned())
}

fn load_with(path: &Path, env: &BTreeMap<String, String>, secrets: Secrets<'_>) -> Result<Config, Problems> {
    strictly(judge_file(path, env, secrets)?)
}

/// A configuration with which nothing is wrong.
fn strictly((config, problems): Judged) -> Result<Config, Problems> {
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

fn judge_file(path: &Path, env: &BTreeMap<String, String>, secrets: Secrets<'_>) -> Result<Judged, Problems> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let (text, mode) = contents(path).map_err(|problem| Problems(vec![problem]))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let surroundings = Surroundings {
        dir,
        file: Some(path),
        file_mode: Some(mode),
        env,
        secrets,
    };
    judge(&text, surroundings)
}

/// Where the state is, whatever else is wrong with the configuration, so that a daemon that works there can be asked. `None` where
/// that cannot be said for sure.
pub fn state_dir(path: &Path, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let (text, mode) = contents(&path).ok()?;
    let surroundings = Surroundings {
        dir: path.parent().unwrap_or(Path::new("/")),
        file: Some(&path),
        file_mode: Some(mode),
        env,
        secrets: Secrets::None,
    };
    let mut written = toml_table(&text).or_else(|_| toml_table(state_dir_line(&text))).ok()?;
    written.retain(|name, _| name == "state_dir");
    let environment = environment::layer(env, &BTreeSet::new(), &mut Vec::new());
    let merged = merge(Table::new(), written, environment).ok()?;
    check::state_dir(&merged, surroundings)
}

/// Of a text that is not TOML, the line that sets `state_dir`: it stands before the first section, or nowhere. Of one that names it in
/// another way (quoted, over several lines), something that is no TOML either.
fn state_dir_line(text: &str) -> &str {
    let head = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let mut naming = head.filter(|line| line.split('#').next().is_some_and(|line| line.contains("state_dir")));
    match (naming.next(), naming.next()) {
        (None, _) => "",
        (Some(line), None) if line.trim_start().starts_with("state_dir") => line,
        _ => "=",
    }
}

/// The same as [`load`], from text. Relative paths are relative to `dir`; `file_mode` is the mode of the file that
/// the text came from, so that secrets in a file that everybody can read are refused.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(
    text: &str,
    dir: &Path,
    file_mode: Option<u32>,
    env: &BTreeMap<String, String>,
) -> Result<Config, Problems> {
    let surroundings = Surroundings {
        dir,
        file: None,
        file_mode,
        env,
        secrets: Secrets::Of { names: &[], page: true },
    };
    read(text, surroundings)
}

/// [`load_for`], of a text that is not in its file yet.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse_for(
    text: &str,
    path: &Path,
    file_mode: u32,
    env: &BTreeMap<String, String>,
    names: &[String],
) -> Result<Config, Problems> {
    let surroundings = Surroundings {
        dir: path.parent().unwrap_or(Path::new("/")),
        file: Some(path),
        file_mode: Some(file_mode),
        env,
        secrets: Secrets::Of { names, page: false },
    };
    read(text, surroundings)
}

/// The text of the configuration file and its mode.
fn contents(path: &Path) -> Result<(String, u32), Problem> {
    let shown = path.display();
    let problem = |message: String| Problem::new("", message);
    let bytes = std::fs::read(path).map_err(|error| {
        let what = match error.kind() {
            ErrorKind::NotFound => format!("there is no configuration file {shown}"),
            ErrorKind::PermissionDenied => {
                return problem(format!(
                    "the configuration file {shown} may not be read by this user; `chmod 644` it, without secrets in it, or `chown` it to \
                     the user who runs the connector"
                ));
            }
            _ => format!("the configuration file {shown} cannot be read: {error}"),
        };
        problem(format!(
            "{what}; name the file with --config FILE or in the environment variable TORQ_CONNECTOR_CONFIG"
        ))
    })?;
    let mode = std::fs::metadata(path)
        .map_err(|error| problem(format!("the configuration file {shown} cannot be examined: {error}")))?
        .permissions()
        .mode();
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        problem(format!(
            "the configuration file {shown} is not UTF-8 text (line {line})"
        ))
    })?;
    Ok((text, mode))
}

/// What a configuration says as far as it can be said, and everything that is wrong.
type Judged = (Option<Config>, Vec<Problem>);

fn read(text: &str, surroundings: Surroundings<'_>) -> Result<Config, Problems> {
    strictly(judge(text, surroundings)?)
}

/// Parses, merges, checks.
///
/// # Errors
/// It cannot even be parsed.
fn judge(text: &str, surroundings: Surroundings<'_>) -> Result<Judged, Problems> {
    let mut problems = Vec::new();
    let mut written = toml_table(text).map_err(|problem| Problems(vec![problem]))?;
    let mut misspelt = Vec::new();
    drop_unknown(&mut written, &mut problems, &mut misspelt);
    // An unknown key never is the beginning of a known one, so these tell of sections that are none.
    let broken = problems
        .iter()
        .map(|problem| problem.key.clone())
        .chain(misspelt)
        .collect();

    let in_file = connector_names(&written);
    let environment = environment::layer(surroundings.env, &in_file, &mut problems);
    let names = &in_file | &connector_names(&environment);
    let merged = merge(defaults(&names), written, environment).map_err(|problem| Problems(vec![problem]))?;

    Ok(check::check(&merged, &in_file, surroundings, problems, broken))
}

/// One layer of the configuration, as the `config` crate wants it.
#[derive(Clone)]
struct Layer(Table);

/// All of a layer is handed over below this one key: the `config` crate reads the outermost keys of a source as
/// paths (`a.b`, `a[1000000]`), and only those.
const ROOT: &str = "configuration";

impl fmt::Debug for Layer {
    /// Shows nothing of the values: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Table, ConfigError> {
        Ok(Map::from_iter([(
            ROOT.to_owned(),
            Value::new(None, ValueKind::Table(self.0.clone())),
        )]))
    }
}

/// Lays the three layers over each other.
fn merge(defaults: Table, file: Table, environment: Table) -> Result<Table, Problem> {
    // Neither can happen with sources that never fail; the error's own words might quote a value.
    let impossible = || Problem::new("", "the configuration cannot be merged");
    let merged = ::config::Config::builder()
        .add_source(Layer(defaults))
        .add_source(Layer(file))
        .add_source(Layer(environment))
        .build()
        .map_err(|_| impossible())?;
    let ValueKind::Table(mut outer) = merged.cache.kind else {
        return Err(impossible());
    };
    match outer.remove(ROOT).map(|value| value.kind) {
        Some(ValueKind::Table(table)) => Ok(table),
        _ => Err(impossible()),
    }
}

/// The layer of defaults, for these connectors.
fn defaults(connectors: &BTreeSet<String>) -> Table {
    let mut table = Table::new();
    let mut lay = |connector: Option<&str>, list: &[(&str, Option<&str>)]| {
        for (key, default) in list {
            if let Some(default) = default {
                let mut path: Vec<&str> = key.split('.').collect();
                if let Some(name) = connector {
                    path.splice(0..0, ["connectors", name]);
                }
                insert(&mut table, &path, Value::new(None, *default));
            }
        }
    };
    lay(None, GENERAL);
    for name in connectors {
        lay(Some(name), CONNECTOR);
    }
    table
}

/// Puts a value at a path, making the tables on the way.
pub(super) fn insert(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            table.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let inner = table
                .entry((*first).to_owned())
                .or_insert_with(|| Value::new(None, Table::new()));
            if let ValueKind::Table(inner) = &mut inner.kind {
                insert(inner, rest, value);
            }
        }
    }
}

/// The names of the connectors of a layer.
fn connector_names(table: &Table) -> BTreeSet<String> {
    match table.get("connectors").map(|value| &value.kind) {
        Some(ValueKind::Table(connectors)) => connectors.keys().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

/// Takes out of the file's layer what is not known, and what is not a section where one must be, and tells it:
/// merged with the other layers it could no longer be seen. `misspelt`: the sections that unknown ones were meant to be, of which
/// nothing can be said to be missing.
fn drop_unknown(table: &mut Table, problems: &mut Vec<Problem>, misspelt: &mut Vec<String>) {
    let connectors = table.remove("connectors");
    drop_unknown_in(table, GENERAL, "", "", problems, misspelt);
    let Some(mut connectors) = connectors else {
        return;
    };
    let ValueKind::Table(by_name) = &mut connectors.kind else {
        let problem = not_a_section("connectors", &connectors);
        problems.push(Problem {
            message: "each connector must be a section of its own: [connectors.NAME]".to_owned(),
            ..problem
        });
        return;
    };
    for name in sorted(by_name) {
        let place = keys::join("connectors", &keys::quoted(&name));
        match by_name.remove(&name) {
            Some(Value {
                kind: ValueKind::Table(mut connector),
                ..
            }) => {
                drop_unknown_in(&mut connector, CONNECTOR, "", &place, problems, misspelt);
                by_name.insert(name, Value::new(None, connector));
            }
            Some(other) => problems.push(not_a_section(&place, &other)),
            None => {}
        }
    }
    table.insert("connectors".to_owned(), connectors);
}

fn drop_unknown_in(
    table: &mut Table,
    known: &[(&str, Option<&str>)],
    section: &str,
    place: &str,
    problems: &mut Vec<Problem>,
    misspelt: &mut Vec<String>,
) {
    for name in sorted(table) {
        let path = keys::join(section, &name);
        let shown = keys::join(&keys::join(place, section), &keys::quoted(&name));
        let Some(value) = table.get_mut(&name) else {
            continue;
        };
        let kind = match name.contains('.') {
            true => Kind::Unknown, // "log.level" in quotes is one name, not two
            false => keys::kind(known, &path),
        };
        match (kind, &mut value.kind) {
            (Kind::Value, _) => {}
            (Kind::Section, ValueKind::Table(inner)) => {
                drop_unknown_in(inner, known, &path, place, problems, misspelt);
            }
            (Kind::Section, _) => {
                problems.push(not_a_section(&shown, value));
                table.remove(&name);
            }
            (Kind::Unknown, kind) => {
                if let ValueKind::Table(_) = kind
                    && let Some(meant) = keys::meant(known, section, &name, place)
                {
                    misspelt.push(keys::join(&keys::join(place, section), meant));
                }
                let advice = keys::advice(known, section, &name, place);
                problems.push(Problem::new(shown, advice).at(value.origin()));
                table.remove(&name);
            }
        }
    }
}

fn sorted(table: &Table) -> Vec<String> {
    let mut names: Vec<String> = table.keys().cloned().collect();
    names.sort();
    names
}

fn not_a_section(key: &str, value: &Value) -> Problem {
    Problem::new(key, format!("must be a section: [{key}]"))
        .at(value.origin())
        .found(check::kind_of(value))
}

/// Parses TOML into a layer whose values know their lines.
fn toml_table(text: &str) -> Result<Table, Problem> {
    let lines = Lines::of(text);
    let parsed = DeTable::parse(text).map_err(|error| {
        // The error's own display quotes the line, and a secret may stand in it.
        let place = error.span().map(|span| lines.place(text, span.start));
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        Problem::new("", format!("this is not TOML: {what}")).at(place.as_deref())
    })?;
    Ok(layer(parsed.into_inner(), &lines))
}

fn layer(table: DeTable<'_>, lines: &Lines) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let origin = format!("line {}", lines.line(key.span().start));
            (
                key.into_inner().into_owned(),
                value_of(value.into_inner(), &origin, lines),
            )
        })
        .collect()
}

fn value_of(value: DeValue<'_>, origin: &String, lines: &Lines) -> Value {
    let kind = match value {
        DeValue::String(text) => ValueKind::String(text.into_owned()),
        DeValue::Integer(number) => {
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                // Too large for any key; as a float it is told as what it is, a number that is not allowed.
                Err(_) => ValueKind::Float(f64::INFINITY),
            }
        }
        DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => ValueKind::Boolean(truth),
        DeValue::Datetime(date) => ValueKind::String(date.to_string()),
        DeValue::Array(items) => ValueKind::Array(
            items
                .into_iter()
                .map(|item| {
                    let origin = format!("line {}", lines.line(item.span().start));
                    value_of(item.into_inner(), &origin, lines)
                })
                .collect(),
        ),
        DeValue::Table(table) => ValueKind::Table(layer(table, lines)),
    };
    Value::new(Some(origin), kind)
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(breaks).collect())
    }

    /// The line, counted from 1, of the byte at `offset`.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// Line and column, in words.
    fn place(&self, text: &str, offset: usize) -> String {
        let line = self.line(offset);
        let start = self.0.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = 1 + text.get(start..offset).map_or(0, |before| before.chars().count());
        format!("line {line}, column {column}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_state_is_can_be_said_of_a_file_that_is_no_toml() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let there = |text: &str| {
            std::fs::write(&path, text).unwrap();
            state_dir(&path, &BTreeMap::new())
        };
        let broken = "\n[connectors.main";
        assert_eq!(
            there(&format!("state_dir = \"here\"{broken}")),
            Some(dir.path().join("here"))
        );
        assert_eq!(
            there(&format!("x = = 1\n  state_dir = '/a' # as ever{broken}")),
            Some("/a".into())
        );
        let usual = Some("/var/lib/torq-connector".into());
        assert_eq!(there(broken), usual);
        assert_eq!(
            there(&format!("# state_dir = \"here\"{broken}\nstate_dir = \"no\"")),
            usual
        );
        for unsure in [
            "state_dir = \"here",
            "\"state_dir\" = \"here\"",
            "state_dir = 'a'\nstate_dir = 'b'",
        ] {
            assert_eq!(there(&format!("{unsure}{broken}")), None, "{unsure}");
        }
    }
}
