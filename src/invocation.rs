//! How this program is called here: what a person has to type before a command, so that it is found and means this configuration.
//!
//! Texts name commands as `torq-connector COMMAND …`, and are kept, compared and passed on like that: whoever reads them later may
//! call the program otherwise. Where they leave the process for a person (terminal, log, page, JSON, message), [`addressed`] makes of
//! them what can be typed as it stands there.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::view::ConnectorStatus;

/// The program's own name, with which every command in a text begins.
const NAME: &str = "torq-connector";

/// How it is called.
#[derive(Debug)]
pub struct Invocation {
    /// What is typed in the place of [`NAME`]; `None`: just that.
    typed: Option<String>,
    /// The names of commands: what follows the name in a sentence is not always one.
    commands: Vec<String>,
}

/// Where a text is typed: beside the process that says it, or anywhere on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Whoever typed the command, in the same place.
    Here,
    /// Whoever opens a page or reads a log of a daemon: relative paths mean nothing to them.
    Anywhere,
}

/// How the program is called by whoever typed the command, and by everybody else.
static CALLED: OnceLock<[Invocation; 2]> = OnceLock::new();

/// How it is called by this reader, once that is known.
fn called(reader: Reader) -> Option<&'static Invocation> {
    let [here, anywhere] = CALLED.get()?;
    Some(match reader {
        Reader::Here => here,
        Reader::Anywhere => anywhere,
    })
}

/// From now on, for the whole process. Only the first time counts: a process is called once.
pub fn remember(here: Invocation, anywhere: Invocation) {
    let _ = CALLED.set([here, anywhere]);
}

impl Invocation {
    /// `program` is what the process was started as, `search` the folders in which a shell finds programs; `config` names the
    /// configuration where it has to be named.
    pub fn new(
        program: Option<&OsStr>,
        search: Option<&OsStr>,
        config: Option<&Path>,
        reader: Reader,
        commands: Vec<String>,
    ) -> Self {
        let program = program.map(Path::new).filter(|program| !program.as_os_str().is_empty());
        let program = match program {
            Some(program) if !is_found(program, search) => typed(program, reader),
            Some(program) => program.file_name().and_then(OsStr::to_str).and_then(quoted),
            None => None,
        };
        let mut typed_there = program.unwrap_or_else(|| NAME.to_owned());
        if let Some(config) = config.and_then(|config| typed(config, reader)) {
            typed_there += &format!(" --config {config}");
        }
        Self {
            typed: Some(typed_there).filter(|typed| typed != NAME),
            commands,
        }
    }

    /// A text with its commands as they are typed. `within`: how what is put there looks in such a text.
    fn put<'a>(&self, text: &'a str, within: impl FnOnce(&str) -> String) -> Cow<'a, str> {
        let (Some(typed), true) = (&self.typed, text.contains(NAME)) else {
            return Cow::Borrowed(text);
        };
        let typed = within(typed);
        let (mut out, mut done) = (String::new(), 0);
        for (at, name) in text.match_indices(NAME) {
            let end = at + name.len();
            let after = text[end..].strip_prefix(' ').unwrap_or_default();
            let word = after
                .split(|c: char| !c.is_ascii_lowercase())
                .next()
                .unwrap_or_default();
            // Behind a slash it is the end of a path, which was put there already or is somebody's own.
            if !text[..at].ends_with('/') && self.commands.iter().any(|command| command == word) {
                out.push_str(&text[done..at]);
                out.push_str(&typed);
                done = end;
            }
        }
        match done {
            0 => Cow::Borrowed(text),
            _ => Cow::Owned(out + &text[done..]),
        }
    }

    fn address<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.put(text, str::to_owned)
    }

    /// The same inside the quotes of JSON, and of a field in a line of text.
    fn address_line<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.put(text, |typed| typed.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Whether typing the program's name alone finds it.
fn is_found(program: &Path, search: Option<&OsStr>) -> bool {
    // Without a slash it was found like that.
    if program.components().count() == 1 && program.parent() == Some(Path::new("")) {
        return true;
    }
    let (Some(name), Ok(itself)) = (program.file_name(), program.canonicalize()) else {
        return false;
    };
    let mut places = search.into_iter().flat_map(std::env::split_paths);
    // The first of that name is the one that a shell takes.
    let found = places.find_map(|folder| folder.join(name).canonicalize().ok());
    found == Some(itself)
}

/// A path as it is typed; `None` for one that cannot be.
fn typed(path: &Path, reader: Reader) -> Option<String> {
    let absolute = match reader {
        Reader::Here => None,
        Reader::Anywhere => std::path::absolute(path).ok(),
    };
    quoted(absolute.as_deref().unwrap_or(path).to_str()?)
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> Option<String> {
    if word.is_empty() || word.chars().any(char::is_control) {
        return None;
    }
    let plain = word.chars().all(|c| c.is_alphanumeric() || "/._-+@:,".contains(c));
    Some(match plain {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    })
}

/// A text whose commands can be typed as they stand there, by whoever this process works for.
pub fn addressed(text: &str) -> Cow<'_, str> {
    addressed_to(Reader::Here, text)
}

/// The same for another reader: a message and a report are read elsewhere, and later.
pub fn addressed_to(reader: Reader, text: &str) -> Cow<'_, str> {
    match called(reader) {
        Some(called) => called.address(text),
        None => Cow::Borrowed(text),
    }
}

/// The same of all that a status says.
pub fn address(mut status: ConnectorStatus) -> ConnectorStatus {
    for text in [&mut status.reason, &mut status.action].into_iter().flatten() {
        if let Cow::Owned(addressed) = addressed(text) {
            *text = addressed;
        }
    }
    status
}

/// Writes log lines whose commands can be typed as they stand there, wherever the log is read.
pub struct Addressed<M>(pub M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Addressed<M> {
    type Writer = Lines<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Lines(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Lines(self.0.make_writer_for(meta))
    }
}

/// One event.
pub struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    /// An event comes in one piece, and leaves in one.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match (called(Reader::Anywhere), std::str::from_utf8(event)) {
            (Some(called), Ok(text)) => self.0.write_all(called.address_line(text).as_bytes())?,
            _ => self.0.write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(program: &str, config: Option<&str>, reader: Reader) -> Invocation {
        let commands = ["users", "retry", "run"].map(str::to_owned).to_vec();
        Invocation::new(Some(OsStr::new(program)), None, config.map(Path::new), reader, commands)
    }

    const TEXT: &str = "see torq-connector users main, then torq-connector retry main; a newer torq-connector wrote it: torq-connector (7)";

    #[test]
    fn advised_commands_name_the_configuration_and_other_words_stay() {
        let named = called(NAME, Some("try.toml"), Reader::Here);
        let told = named.address(TEXT);
        assert_eq!(
            told,
            "see torq-connector --config try.toml users main, then torq-connector --config try.toml retry main; a newer \
             torq-connector wrote it: torq-connector (7)"
        );
        assert_eq!(named.address(&told), told, "what can be typed stays as it is");
        assert!(matches!(
            called(NAME, None, Reader::Here).address(TEXT),
            Cow::Borrowed(TEXT)
        ));
    }

    #[test]
    fn a_program_that_a_shell_does_not_find_is_named_by_its_path() {
        let here = called("target/debug/torq-connector", None, Reader::Here);
        let told = here.address("then: torq-connector run");
        assert_eq!(told, "then: target/debug/torq-connector run");
        assert_eq!(here.address(&told), told, "what can be typed stays as it is");
        let anywhere = called("./build/torq-connector", Some("it's.toml"), Reader::Anywhere);
        let folder = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(
            anywhere.address("torq-connector run"),
            format!("{folder}/build/torq-connector --config '{folder}/it'\\''s.toml' run")
        );
    }

    #[test]
    fn a_program_that_a_shell_finds_is_named_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        for folder in [&folder, &other] {
            std::fs::write(folder.path().join(NAME), "").unwrap();
        }
        let program = folder.path().join(NAME);
        let typed = |search: &[&Path]| {
            let search = std::env::join_paths(search).unwrap();
            Invocation::new(Some(program.as_os_str()), Some(&search), None, Reader::Here, Vec::new()).typed
        };
        assert_eq!(typed(&[Path::new("/nowhere"), folder.path()]), None);
        let whole = program.to_str().map(str::to_owned);
        assert_eq!(typed(&[other.path(), folder.path()]), whole, "another one comes first");
        assert_eq!(typed(&[]), whole);
    }

    #[test]
    fn what_cannot_be_typed_is_not_advised() {
        assert_eq!(called(NAME, Some("a\nb"), Reader::Here).typed, None);
        assert_eq!(called("", Some(""), Reader::Here).typed, None);
    }

    #[test]
    fn a_line_of_json_is_one_still() {
        let odd = called(NAME, Some("a \"b\\c.toml"), Reader::Here);
        let line = serde_json::json!({ "action": "then: torq-connector run" }).to_string();
        let read: serde_json::Value = serde_json::from_str(&odd.address_line(&line)).unwrap();
        assert_eq!(read["action"], "then: torq-connector --config 'a \"b\\c.toml' run");
    }
}
