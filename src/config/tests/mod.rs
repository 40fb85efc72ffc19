//! What a configuration may say and what is said about it: each test writes a configuration as a user would, and
//! looks at what comes of it. No test touches the environment of its process.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

mod environment;
mod example;
mod files;
mod filters;
mod notify;
mod problems;
mod secrets;
mod values;

/// A folder with a configuration's files, a credentials folder, and an environment.
struct World {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
    file_mode: Option<u32>,
}

/// The smallest configuration with a service account; the secrets' files are there.
const SMALL: &str = r#"
[connectors.main.torq]
region = "us"
client_id = "torq-id"
client_secret_file = "torq_secret"

[connectors.main.jumpcloud]
region = "us"
client_id = "jumpcloud-id"
client_secret_file = "jumpcloud_secret"
"#;

impl World {
    /// A world in which [`SMALL`] works.
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            env: BTreeMap::new(),
            file_mode: None,
        };
        std::fs::create_dir(world.path("credentials")).unwrap();
        world.write("torq_secret", "t0rq-s3cret\n", 0o600);
        world.write("jumpcloud_secret", "jumpcl0ud-s3cret\n", 0o600);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn set(&mut self, variable: &str, value: &str) -> &mut Self {
        self.env.insert(variable.to_owned(), value.to_owned());
        self
    }

    fn parse(&self, text: &str) -> Result<Config, Problems> {
        parse(text, self.folder.path(), self.file_mode, &self.env)
    }

    /// The configuration, which must be good.
    fn good(&self, text: &str) -> Config {
        self.parse(text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The one connector of a good configuration.
    fn connector(&self, text: &str) -> Connector {
        self.good(text).connectors.remove(0)
    }

    /// What is wrong with a bad configuration.
    fn bad(&self, text: &str) -> Vec<Problem> {
        let problems = self.parse(text).unwrap_err().0;
        assert!(!problems.is_empty());
        problems
    }

    /// The only thing that is wrong.
    fn only(&self, text: &str) -> Problem {
        let mut problems = self.bad(text);
        assert_eq!(problems.len(), 1, "{}", Problems(problems));
        problems.remove(0)
    }
}

/// [`SMALL`] with `line` in the section `[connectors.main…]` that ends with `section` (`""`, `.torq`, `.users`, …),
/// in place of the line there that sets the same key.
fn with(section: &str, line: &str) -> String {
    edit(SMALL, &format!("[connectors.main{section}]"), line)
}

/// [`SMALL`] with `line` in a section outside the connectors.
fn with_general(section: &str, line: &str) -> String {
    edit(SMALL, &format!("[{section}]"), line)
}

fn edit(text: &str, header: &str, line: &str) -> String {
    let key = line.split('=').next().unwrap().trim();
    let mut out = Vec::new();
    let mut inside = false;
    let mut done = false;
    for old in text.lines() {
        if old.starts_with('[') {
            inside = old == header;
        }
        if inside && old.split('=').next().unwrap().trim() == key {
            continue;
        }
        out.push(old.to_owned());
        if old == header {
            out.push(line.to_owned());
            done = true;
        }
    }
    if !done {
        out.push(header.to_owned());
        out.push(line.to_owned());
    }
    out.join("\n")
}

/// [`SMALL`] without the line that sets `key` in `[connectors.main…]`.
fn without(section: &str, key: &str) -> String {
    let text = with(section, &format!("{key} = 0"));
    text.replace(&format!("{key} = 0"), "")
}
