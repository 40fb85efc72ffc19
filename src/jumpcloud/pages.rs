//! JumpCloud's lists, page by page, with all that was seen of them: an envelope or a bare array, pages capped below the limit
//! asked for, counts that count the page, `skip` instead of `offset`. Only an empty page ends a list.

use std::collections::HashSet;

use http::Method;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer};
use serde_json::Value;
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

use crate::http::{Answer, Body, Failure, FailureKind, Request, clean, unintelligible};
use crate::model::Peer;
use crate::oauth::Session;

/// The documented maximum.
const LIMIT: usize = 100;

/// The rows of a list answer: `{"results": [...], "totalCount": n}` or a bare array, both observed. `totalCount` is not read:
/// a count that counts the page would end the adoption early and make duplicates.
pub(super) struct Rows<T>(pub(super) Vec<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let rows = rows(value).map_err(de::Error::custom)?;
        good_rows(rows.into_iter().map(read_row))
            .map(Rows)
            .map_err(de::Error::custom)
    }
}

fn rows(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(rows) => Ok(rows),
        Value::Object(mut envelope) => match envelope.remove("results") {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Err("an object without a list of results".to_owned()),
        },
        _ => Err("neither a list nor an envelope of one".to_owned()),
    }
}

fn read_row<T: DeserializeOwned>(row: Value) -> Result<T, String> {
    serde_json::from_value(row).map_err(|error| clean(&error.to_string()))
}

/// The rows that can be read. One bad row must not stop the others; rows of which none is good are another API than we know.
fn good_rows<T>(rows: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, String> {
    let mut good = Vec::new();
    let mut complaint = None;
    for row in rows {
        match row {
            Ok(row) => good.push(row),
            Err(error) => complaint = Some(error),
        }
    }
    match complaint {
        Some(error) if good.is_empty() => Err(error),
        Some(error) => {
            tracing::warn!(%error, "a row of a JumpCloud list cannot be read and is left out");
            Ok(good)
        }
        None => Ok(good),
    }
}

/// By which word the server pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Offset,
    Skip,
}

/// A list that is being read.
pub struct Pages<'a, T> {
    session: &'a Session,
    operation: &'static str,
    url: Url,
    word: Word,
    /// Rows received so far, pages of repetitions not counted.
    position: usize,
    /// Hashes of the ids received: 8 bytes a row.
    seen: HashSet<u64>,
    row: std::marker::PhantomData<fn() -> T>,
}

impl<'a, T: DeserializeOwned> Pages<'a, T> {
    pub(super) fn new(session: &'a Session, operation: &'static str, url: Url) -> Self {
        Self {
            session,
            operation,
            url,
            word: Word::Offset,
            position: 0,
            seen: HashSet::new(),
            row: std::marker::PhantomData,
        }
    }

    /// The next rows that were not there before; `None` after the empty page that ends the list.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, Failure> {
        loop {
            let word = match self.word {
                Word::Offset => "offset",
                Word::Skip => "skip",
            };
            let request = Request {
                operation: self.operation,
                method: Method::GET,
                url: self.url.clone(),
                query: vec![("limit", LIMIT.to_string()), (word, self.position.to_string())],
                body: Body::Empty,
            };
            let page = self.session.ask(&request, |answer| self.read(answer)).await?;
            if page.received == 0 {
                return Ok(None);
            }
            let mut fresh = Vec::with_capacity(page.received);
            for (identity, row) in page.rows {
                if self.seen.insert(identity) {
                    fresh.push(row);
                }
            }
            if !fresh.is_empty() {
                self.position += page.received;
                return Ok(Some(fresh));
            }
            // A page of repetitions only: the server may not know our word. If it knows neither, it would go on for ever.
            match self.word {
                Word::Offset => self.word = Word::Skip,
                Word::Skip => {
                    let detail = format!("the list repeats itself after {} rows and does not end", self.position);
                    return Err(Failure::new(
                        Peer::JumpCloud,
                        self.operation,
                        FailureKind::Unintelligible,
                        detail,
                    ));
                }
            }
        }
    }

    fn read(&self, answer: &Answer) -> Result<Page<T>, Failure> {
        let wrong = |what: String| Failure {
            status: Some(answer.status),
            ..Failure::new(
                Peer::JumpCloud,
                self.operation,
                FailureKind::Unintelligible,
                format!("the body is not what it should be: {what}"),
            )
        };
        let value = serde_json::from_slice(&answer.body)
            .map_err(|error| unintelligible(Peer::JumpCloud, self.operation, answer, &error))?;
        let rows = rows(value).map_err(wrong)?;
        let received = rows.len();
        let rows = rows.into_iter().map(|row| Ok((identity(&row), read_row(row)?)));
        Ok(Page {
            received,
            rows: good_rows(rows).map_err(wrong)?,
        })
    }

    /// How many rows were received so far, also those that could not be read: how much is in the list, at least.
    pub fn received(&self) -> u64 {
        self.position as u64
    }

    /// Hashes (xxh3) of the ids received.
    pub fn into_seen(self) -> HashSet<u64> {
        self.seen
    }
}

/// One page: what was read of it, and how many rows it had.
struct Page<T> {
    received: usize,
    rows: Vec<(u64, T)>,
}

/// What tells one row from another: its id.
fn identity(row: &Value) -> u64 {
    match row.get("id").or_else(|| row.get("_id")).and_then(Value::as_str) {
        Some(id) => xxh3_64(id.as_bytes()),
        None => xxh3_64(row.to_string().as_bytes()),
    }
}
