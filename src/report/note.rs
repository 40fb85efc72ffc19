//! What is said beside the rows: in full to whoever works at the machine, and on paper without how the machine is set up.

use serde::{Serialize, Serializer};

use crate::invocation::addressed;

/// Something that whoever reads an answer should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    words: String,
    /// What is said instead where it is read by others than those who set the connector up; `None`: the same.
    on_paper: Option<String>,
}

impl Note {
    /// In full, and on paper without what is nobody else's business: client ids, the paths of secrets, commands with paths of this machine,
    /// all of which reasons and advice may hold.
    pub fn with_paper(words: impl Into<String>, on_paper: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            on_paper: Some(on_paper.into()),
        }
    }

    /// In full, for whoever works at the machine.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// As it may be handed to others.
    pub fn on_paper(&self) -> &str {
        self.on_paper.as_deref().unwrap_or(&self.words)
    }

    /// With commands that can be typed as they stand there, by whoever this process works for. On paper they stay as they are: how this
    /// program is called here names its files.
    pub(super) fn address(&mut self) {
        let addressed = addressed(&self.words).into_owned();
        let paper = std::mem::replace(&mut self.words, addressed);
        self.on_paper.get_or_insert(paper);
    }

    pub(super) fn print(&mut self) {
        if let Some(paper) = self.on_paper.take() {
            self.words = paper;
        }
    }
}

impl From<String> for Note {
    fn from(words: String) -> Self {
        Self { words, on_paper: None }
    }
}

impl From<&str> for Note {
    fn from(words: &str) -> Self {
        words.to_owned().into()
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.words)
    }
}
