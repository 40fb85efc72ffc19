//! `docs/troubleshoot.md` and the program's messages are kept in step. What the program can say is read from its source: whatever
//! stands in an error, a warning, a failure of a command or a problem of the configuration, and every text of the rooms that are
//! about messages. Each of them has a row on the page, and each message on the page is one that the program has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a text stands that a person may meet.
const TOLD: [&str; 8] = [
    "#[error(",
    "tracing::error!(",
    "tracing::warn!(",
    "CommandError::new(",
    "CommandError::unexpected(",
    ".wrong(",
    ".refused(",
    "Problem::new(",
];

/// Where one stands that only who looks for it meets.
const QUIET: [&str; 3] = ["tracing::info!(", "tracing::debug!(", "tracing::trace!("];

/// Rooms that put their messages together in more ways than those: every text in them counts.
const ROOMS: [&str; 28] = [
    "cli/backup.rs",
    "cli/health.rs",
    "cli/reach.rs",
    "config/authorities.rs",
    "config/connector.rs",
    "config/environment.rs",
    "config/file.rs",
    "config/read.rs",
    "config/secret.rs",
    "daemon/control.rs",
    "http/lane.rs",
    "http/mod.rs",
    "http/outcome.rs",
    "jumpcloud/mod.rs",
    "jumpcloud/pages.rs",
    "jumpcloud/reading.rs",
    "jumpcloud/rows.rs",
    "oauth/mod.rs",
    "sync/application.rs",
    "sync/collect.rs",
    "sync/deliver.rs",
    "sync/learn.rs",
    "sync/neighbours.rs",
    "sync/notice.rs",
    "torq/mod.rs",
    "torq/users.rs",
    "web/board.rs",
    "web/health.rs",
];

/// Texts in those rooms that are no message: parts of one, names of requests, advice that stands beside its reason, and what other
/// programs say.
const PARTS: [&str; 36] = [
    // Of a failure: what was being done.
    "search directory users",
    "list directory users",
    "get a token",
    // What the libraries say, which is looked for.
    "Invalid Server Name",
    "not valid yet",
    "not valid for name",
    "failed to lookup address",
    "keep-alive timed out",
    // Advice.
    "look at them (…), then: torq-connector approve … --count …; they are dropped by themselves when the users are back",
    "nothing is lost: users stay pending, and it is tried again once a day, and on: torq-connector retry",
    "nothing: the next run tries again",
    "nothing: it is tried again once a day, and on: torq-connector retry",
    "nothing: the next poll decides",
    "nothing: the next run tries again; what was refused (torq-connector users …), on: torq-connector retry",
    "set this machine's clock (NTP",
    "nothing, if that is meant; what came of it is in: torq-connector events",
    "extend the API key in Torq, or make a new one and put it into the configuration; set torq.key_expires to its new date; then: torq-connector reconnect",
    "see where it is (torq-connector events … --kind record_unreadable), and have that user mended or deleted in Torq",
    "let it read its configuration again (SIGHUP, or torq-connector reconnect",
    "put that right, and repeat: torq-connector remove",
    // Parts.
    "line …, column",
    "the … for",
    "the … listing",
    "the state of",
    "the environment variable",
    "report or delete",
    "the client id of the Torq API key",
    "the client id of the service account",
    "the id of the JumpCloud organisation",
    "the catalog_app_id of Torq in JumpCloud SaaS Management, such as \"torq\"",
    "not within … s",
    "bytes, schema …, checked",
    // Said of what goes well.
    "the running daemon does it; waiting for it (Ctrl-C ends the waiting, not what the daemon does; torq-connector status shows how it goes",
    "no metrics are recorded",
    // No words.
    "text/plain; version=0.0.4; charset=utf-8",
    "GET … HTTP/1.1 Host: … Connection: close",
];

/// A text of the source, and where in it it stands.
struct Text {
    at: usize,
    text: String,
}

/// The texts between quotation marks, without what comments say.
fn texts(source: &str) -> Vec<Text> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some(quoted) = character(rest) {
            at += quoted;
        } else if rest.starts_with('"') {
            let (text, length) = unquoted(rest);
            found.push(Text { at, text });
            at += length;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

/// How long the character between apostrophes is that this begins with. (A lifetime has no second one.)
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let length = match inner.strip_prefix('\\') {
        Some(escaped) => 1 + escaped[1..].find('\'')? + 1,
        None => inner.chars().next()?.len_utf8(),
    };
    inner[length..].starts_with('\'').then_some(length + 2)
}

/// The text that begins here, and how long it is with its quotation marks.
fn unquoted(rest: &str) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at + 1),
            '\\' => match chars.next().unwrap().1 {
                // Goes on in the next line, behind its indentation.
                '\n' => {
                    let indented = rest[at + 2..].chars().take_while(|c| c.is_whitespace()).count();
                    chars.by_ref().take(indented).for_each(|_| {});
                }
                'n' | 'r' | 't' => text.push(' '),
                'u' => {
                    chars.by_ref().find(|(_, c)| *c == '}');
                }
                other => text.push(other),
            },
            c => text.push(c),
        }
    }
    panic!("a text without an end: {rest:.80}");
}

/// Where what is opened by the parenthesis at `open` is closed.
fn closed(source: &str, texts: &[Text], open: usize) -> usize {
    let mut depth = 0;
    let mut at = open;
    let mut within = texts.iter().skip_while(|text| text.at < open).peekable();
    while at < source.len() {
        if within.peek().is_some_and(|text| text.at == at) {
            at += unquoted(&source[at..]).1;
            within.next();
            continue;
        }
        match source.as_bytes()[at] {
            b'(' => depth += 1,
            b')' if depth == 1 => return at,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    source.len()
}

/// What a message is compared by: what is filled in is `…`, and does not count at its ends.
fn key(text: &str) -> String {
    let mut words = String::new();
    let mut depth = 0;
    for c in text.chars().filter(|c| *c != '`') {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                words.push('…');
            }
            _ if depth > 0 => {}
            c => words.push(c),
        }
    }
    let mut words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    while words.contains("……") {
        words = words.replace("……", "…");
    }
    words.trim_matches([' ', '…', ':', ';', ',', '.', '(', ')']).to_owned()
}

/// Long enough to be found again. (What is filled in says the rest.)
fn counts(key: &str) -> bool {
    key.matches(' ').count() >= 2
}

/// What the program can say, with where that stands: all that must be on the page, and all that may be.
fn said() -> (BTreeMap<String, String>, BTreeSet<String>) {
    let (mut must, mut may) = (BTreeMap::new(), BTreeSet::new());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let room = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            // Neither the invented peers nor the demo are anybody's daily life.
            if room.contains("sandbox") || room.contains("tests") || room.contains("demo") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("mod tests {").next().unwrap();
            if room.ends_with(".rs") {
                read(&room, source, &mut must, &mut may);
            }
        }
    }
    (must, may)
}

fn read(room: &str, source: &str, must: &mut BTreeMap<String, String>, may: &mut BTreeSet<String>) {
    let texts = texts(source);
    let spans = |words: &[&str]| -> Vec<(usize, usize)> {
        let places = words.iter().flat_map(|word| {
            let starts = source.match_indices(word);
            starts.map(|(at, _)| at + word.len() - 1)
        });
        places.map(|open| (open, closed(source, &texts, open))).collect()
    };
    let (told, quiet) = (spans(&TOLD), spans(&QUIET));
    let within = |spans: &[(usize, usize)], at: usize| spans.iter().any(|(from, to)| (*from..*to).contains(&at));
    for text in &texts {
        let key = key(&text.text);
        let whole = ROOMS.contains(&room) && !within(&quiet, text.at);
        if counts(&key) && !PARTS.contains(&key.as_str()) && (whole || within(&told, text.at)) {
            must.insert(key.clone(), room.to_owned());
        }
        may.insert(key);
    }
}

/// The messages of the page: what stands in the first column of a table whose first column has messages.
fn listed() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshoot.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut listed = Vec::new();
    let mut of_messages = false;
    for line in page.lines() {
        match line.strip_prefix("| ") {
            None => of_messages &= line.starts_with("| "),
            Some(header) if header.starts_with("message |") => of_messages = true,
            Some(row) if of_messages && !row.starts_with("---") => {
                let cell = row.split(" | ").next().unwrap();
                for message in cell.split("<br>") {
                    let message = message.trim();
                    if let Some(message) = message.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
                        listed.push(message.to_owned());
                    }
                }
            }
            Some(_) => {}
        }
    }
    listed
}

#[test]
fn every_message_has_its_row_and_every_row_its_message() {
    let (must, may) = said();
    let listed = listed();
    assert!(
        must.len() > 150 && listed.len() > 150,
        "{} and {}",
        must.len(),
        listed.len()
    );
    let keys: BTreeSet<String> = listed.iter().map(|message| key(message)).collect();
    let missing: Vec<_> = must.iter().filter(|(message, _)| !keys.contains(*message)).collect();
    assert!(missing.is_empty(), "not in docs/troubleshoot.md:\n{missing:#?}");
    let stale: Vec<_> = listed.iter().filter(|message| !may.contains(&key(message))).collect();
    assert!(stale.is_empty(), "only in docs/troubleshoot.md:\n{stale:#?}");
    let once: BTreeSet<_> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a message has two rows");
    let idle: Vec<_> = PARTS.iter().filter(|part| !may.contains(**part)).collect();
    assert!(idle.is_empty(), "nowhere in the source:\n{idle:#?}");
}

#[test]
fn every_page_is_in_the_index_and_every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut pages = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                readme.contains(&format!("(docs/{name})")),
                "{name} is not in the README"
            );
            pages.push(path);
        }
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                let target = page.parent().unwrap().join(path);
                assert!(target.exists(), "{}: {link}", page.display());
            }
        }
    }
}
