//! JumpCloud's lists, page by page, with all that was seen of them: an envelope or a bare array, pages capped below the limit
//! asked for, counts that count the page, `skip` instead of `offset`, rows that shift while the list is read. Where the next
//! page begins, and when a list is at its end, is decided in [`super::reading`].

use std::collections::HashSet;
use std::marker::PhantomData;

use http::Method;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

use super::reading::{Reading, Verdict};
use super::rows::{Row, Unread};
use crate::http::foreign::{Field, Found, Records, Skipped};
use crate::http::{Answer, Body, Failure, FailureKind, Request, decode};
use crate::model::Peer;
use crate::oauth::Session;

/// The documented maximum.
const LIMIT: usize = 100;
/// Rows of one page of which none can be read, after which the list is another API than we know, whatever came before.
const SOME: usize = 10;
/// The rows of a list answer that can be read: `{"results": [...], "totalCount": n}` or a bare array, both observed. `totalCount`
/// is not read: a count that counts the page would end the adoption early and make duplicates.
pub(super) struct Rows<T>(pub(super) Vec<T>);

impl<'de, T: Row> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let page: Page<T> = Page::deserialize(deserializer)?;
        match page.unread.first() {
            Some((_, unread)) if page.good.is_empty() => Err(D::Error::custom(none_is_good(unread))),
            _ => Ok(Self(page.good.into_iter().map(|(_, row)| row).collect())),
        }
    }
}

/// One bad row must not stop the others; rows of which none is good are another API than we know.
fn none_is_good(unread: &Unread) -> String {
    format!(
        "the body is not what it should be: no row can be read ({})",
        unread.reason
    )
}

/// One page: its rows with their prints.
struct Page<T> {
    /// The print of the first row, readable or not.
    first: Option<u64>,
    /// The rows that can be read.
    good: Vec<(u64, T)>,
    /// The rows that cannot.
    unread: Vec<(u64, Unread)>,
}

impl<'de, T: Row> Deserialize<'de> for Page<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut page = Page {
            first: None,
            good: Vec::new(),
            unread: Vec::new(),
        };
        let mut show = |fields: Option<&mut [Field]>| {
            let (print, row) = match fields {
                Some(fields) => (print_of(fields.get(..T::IDENTITY).unwrap_or_default()), T::read(fields)),
                None => (
                    0,
                    Err(Unread {
                        reason: "it is not an object",
                        ..Unread::default()
                    }),
                ),
            };
            page.first.get_or_insert(print);
            match row {
                Ok(row) => page.good.push((print, row)),
                Err(unread) => page.unread.push((print, unread)),
            }
        };
        deserializer.deserialize_any(Envelope {
            records: Records {
                names: T::FIELDS,
                show: &mut show,
            },
        })?;
        Ok(page)
    }
}

/// Reads one page by itself: its rows, and those that cannot be read.
pub(super) fn read_page<T: Row>(operation: &'static str, answer: &Answer) -> Result<(Vec<T>, Vec<Unread>), Failure> {
    let page: Page<T> = decode(Peer::JumpCloud, operation, answer)?;
    let good = page.good.into_iter().map(|(_, row)| row);
    Ok((good.collect(), page.unread.into_iter().map(|(_, row)| row).collect()))
}

/// A list, bare or in an envelope.
struct Envelope<'a> {
    records: Records<'a>,
}

impl<'de> Visitor<'de> for Envelope<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list or an envelope of one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.records.visit_seq(list).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Records { names, show } = self.records;
        let mut found = Found::Nothing;
        while let Some(name) = object.next_key::<String>()? {
            if name == "results" {
                // Whichever of the two was believed, the rows of the other would be forgotten.
                if found != Found::Nothing {
                    return Err(A::Error::duplicate_field("results"));
                }
                let show = &mut *show;
                found = object.next_value_seed(Records { names, show })?;
            } else {
                object.next_value::<Skipped>()?;
            }
        }
        match found {
            Found::List(_) => Ok(()),
            Found::Nothing | Found::Other => Err(A::Error::custom("an object without a list of results")),
        }
    }
}

/// A number that stands for these fields.
fn print_of(fields: &[Field]) -> u64 {
    let mut bytes = Vec::with_capacity(96);
    for field in fields {
        let (kind, text) = match field {
            Field::Absent => (0, ""),
            Field::Text(text) => (1, text.as_str()),
            Field::Number(text) => (2, text.as_str()),
            Field::Bool(false) => (3, ""),
            Field::Bool(true) => (4, ""),
            Field::Odd => (5, ""),
        };
        bytes.push(kind);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    xxh3_64(&bytes)
}

/// A list that is being read.
pub struct Pages<'a, T> {
    session: &'a Session,
    operation: &'static str,
    url: Url,
    reading: Reading,
    unread: Vec<Unread>,
    /// A row could be read.
    is_known_api: bool,
    row: PhantomData<fn() -> T>,
}

impl<'a, T: Row> Pages<'a, T> {
    pub(super) fn new(session: &'a Session, operation: &'static str, url: Url) -> Self {
        Self {
            session,
            operation,
            url,
            reading: Reading::new(),
            unread: Vec::new(),
            is_known_api: false,
            row: PhantomData,
        }
    }

    /// The next rows that were not there before and can be read; `None` after the empty page that ends the list.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, Failure> {
        loop {
            let word = self.reading.word();
            let request = Request {
                operation: self.operation,
                method: Method::GET,
                url: self.url.clone(),
                query: vec![("limit", LIMIT.to_string()), (word, self.reading.offset().to_string())],
                body: Body::Empty,
            };
            let page = self.session.ask(&request, |answer| self.read(answer)).await?;
            let Page { first, good, unread } = page;
            let prints: Vec<u64> = good
                .iter()
                .map(|row| row.0)
                .chain(unread.iter().map(|row| row.0))
                .collect();
            let mut known: HashSet<u64> = prints
                .iter()
                .copied()
                .filter(|print| self.reading.has_seen(*print))
                .collect();
            match self.reading.notice(first, &prints) {
                Ok(Verdict::End) => return Ok(None),
                Ok(Verdict::Again) => {}
                Ok(Verdict::Take) => {
                    self.is_known_api |= !good.is_empty();
                    let fresh = unread.into_iter().filter(|(print, _)| known.insert(*print));
                    for (_, unread) in fresh {
                        tracing::warn!(
                            operation = self.operation,
                            reason = unread.reason,
                            "a row of a JumpCloud list cannot be read"
                        );
                        self.unread.push(unread);
                    }
                    let fresh = good.into_iter().filter(|(print, _)| known.insert(*print));
                    return Ok(Some(fresh.map(|(_, row)| row).collect()));
                }
                Err(detail) => {
                    let kind = FailureKind::Unintelligible;
                    return Err(Failure::new(Peer::JumpCloud, self.operation, kind, detail));
                }
            }
        }
    }

    fn read(&self, answer: &Answer) -> Result<Page<T>, Failure> {
        let page: Page<T> = decode(Peer::JumpCloud, self.operation, answer)?;
        match page.unread.first() {
            // The last row of all stands on a page of its own, too.
            Some((_, unread)) if page.good.is_empty() && (page.unread.len() >= SOME || !self.is_known_api) => {
                Err(Failure {
                    status: Some(answer.status),
                    ..Failure::new(
                        Peer::JumpCloud,
                        self.operation,
                        FailureKind::Unintelligible,
                        none_is_good(unread),
                    )
                })
            }
            _ => Ok(page),
        }
    }

    /// The rows so far that cannot be read.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }
}
