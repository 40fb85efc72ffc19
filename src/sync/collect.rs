//! Collecting: both listings side by side, page by page, into the state. A page is asked for, applied with its cursor, and
//! forgotten; a restart goes on at the cursors.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::{Connector, Halt, Phase};
use crate::config::UserFilter;
use crate::http::{Failure, FailureKind};
use crate::model::{Listing, Peer};
use crate::state::{Applied, Cursor, PollEnd};
use crate::torq::PageToken;

/// Pages in a row of one listing with rows but nobody new, after which the listing is going round in circles: a server may
/// make a fresh token for the same page.
const MAX_BARREN_PAGES: u32 = 20;
/// Empty pages, each with another token and none after them with somebody new, after which the listing of a small workspace is
/// not believed to end. At Torq's pace that takes a minute or two.
const MAX_EMPTY_PAGES: u64 = 500;
/// One such page more is believed for so many users of the snapshot. Torq may filter after it has cut the pages: the listing in
/// which nobody is then has as many empty pages as the other one has full ones, of 50 or 100 users. Ten leaves room for shorter
/// pages, and for a first collection in which the full ones come at a fifth of the pace of the empty ones. An honest listing
/// that was given up would never be read to its end, so the larger the workspace, the longer it is believed.
const USERS_AN_EMPTY_PAGE: u64 = 10;
/// Users of a snapshot beyond which a listing that goes on inventing people is not believed to end: it would fill the disk.
const MAX_USERS: u64 = 1_000_000;
/// How often a listing is started again in one poll because its page token went stale.
const MAX_RESTARTS: u32 = 3;

/// Reads both listings to their end and closes the poll.
pub(super) async fn collect(connector: &Connector) -> Result<PollEnd, Halt> {
    let filter = Arc::new(connector.config.users.clone());
    let for_begin = Arc::clone(&filter);
    let (cursors, started) = connector
        .state
        .call(move |store| store.begin_poll(Timestamp::now(), &for_begin))
        .await?;
    let [sso, local] = cursors;
    if sso.pages + local.pages > 0 {
        tracing::info!(connector = %connector.name(), pages = sso.pages + local.pages, %started, "going on with the poll that was cut short");
    }
    connector.note_phase(Phase::Collecting {
        users: 0,
        pages: sso.pages + local.pages,
    });
    let read = tokio::try_join!(
        read_listing(connector, &filter, Listing::Sso, sso),
        read_listing(connector, &filter, Listing::Local, local),
    );
    read?;
    if connector.doubts_clock() {
        connector.state.call(|store| store.doubt_poll()).await?;
    }
    let rules = connector.rules();
    Ok(connector
        .state
        .call(move |store| store.finish_poll(Timestamp::now(), &rules))
        .await?)
}

async fn read_listing(
    connector: &Connector,
    filter: &Arc<UserFilter>,
    listing: Listing,
    from: Cursor,
) -> Result<(), Halt> {
    if from.done {
        return Ok(());
    }
    let mut next = from.next;
    let mut loops = Loops::default();
    let mut restarts = 0;
    loop {
        connector.go_on()?;
        let page = match connector.torq.users_page(listing, next.as_ref()).await {
            Ok(page) => page,
            Err(failure) if next.is_some() && is_stale(&failure) && restarts < MAX_RESTARTS => {
                tracing::info!(connector = %connector.name(), %listing, "the page token went stale; starting the listing again");
                connector
                    .state
                    .call(move |store| store.restart_listing(listing))
                    .await?;
                next = None;
                loops = Loops::default();
                restarts += 1;
                continue;
            }
            Err(failure) if next.is_some() && is_stale(&failure) => {
                // Tokens that die faster than pages come are Torq's trouble and nobody's fault: the next poll begins afresh.
                connector.state.call(|store| store.abandon_poll()).await?;
                return Err(Halt::Unavailable(failure));
            }
            Err(failure) => return Err(Halt::of(failure)),
        };
        let following = page.next.clone();
        let rows = page.users.len() + page.unreadable.len();
        let for_apply = Arc::clone(filter);
        let applied = connector
            .state
            .call(move |store| store.apply_page(Timestamp::now(), listing, &page, &for_apply))
            .await?;
        connector.phase.send_modify(|phase| {
            if let Phase::Collecting { users, pages } = phase {
                *users = applied.seen;
                *pages += 1;
            }
        });
        let Some(following) = following else { return Ok(()) };
        if let Some(detail) = loops.notice(&following, rows, &applied) {
            let detail = format!("the {listing} listing {detail}");
            // Its cursor leads nowhere: the next poll starts at the first page.
            connector.state.call(|store| store.abandon_poll()).await?;
            return Err(Halt::Unavailable(Failure::new(
                Peer::Torq,
                "list users",
                FailureKind::Unintelligible,
                detail,
            )));
        }
        next = Some(following);
    }
}

/// A page token that is not known any more answers 400 or 404.
fn is_stale(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Refused | FailureKind::NotFound)
}

/// Notices a listing that would never end. Pure.
#[derive(Default)]
struct Loops {
    /// Hashes of the tokens of this pass: 8 bytes a page.
    tokens: HashSet<u64>,
    barren: u32,
    empty: u64,
}

impl Loops {
    /// Takes note of a page: the token that follows it, its rows, and what came of applying it. Says what is wrong, if something
    /// is.
    fn notice(&mut self, following: &PageToken, rows: usize, applied: &Applied) -> Option<&'static str> {
        if !self.tokens.insert(xxh3_64(following.as_str().as_bytes())) {
            return Some("repeats a page token and would never end");
        }
        // An empty page says nothing about going in circles: Torq may filter after it has cut the pages.
        match (rows, applied.fresh) {
            (0, _) => self.empty += 1,
            (_, 0) => self.barren += 1,
            _ => (self.barren, self.empty) = (0, 0),
        }
        // Only as long as there are more and more: a listing that is sane again may say that they are all gone.
        if applied.appeared > 0 && applied.present > MAX_USERS {
            return Some("has more users than a workspace can have and would never end");
        }
        if self.barren >= MAX_BARREN_PAGES {
            return Some("repeats its users with ever new page tokens and would never end");
        }
        let believed = MAX_EMPTY_PAGES + applied.present / USERS_AN_EMPTY_PAGE;
        (self.empty >= believed).then_some("sends one empty page after another and would never end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with so many users who are new in this pass.
    fn with(fresh: usize) -> Applied {
        Applied {
            fresh,
            ..Applied::default()
        }
    }

    fn token(text: &str) -> PageToken {
        PageToken::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_token_that_repeats_is_noticed_at_once_or_later() {
        let mut loops = Loops::default();
        assert_eq!(loops.notice(&token("a"), 100, &with(100)), None);
        assert!(loops.notice(&token("a"), 100, &with(100)).is_some(), "A, A");
        let mut loops = Loops::default();
        for name in ["a", "b"] {
            assert_eq!(loops.notice(&token(name), 100, &with(100)), None);
        }
        assert!(loops.notice(&token("a"), 100, &with(100)).is_some(), "A, B, A");
    }

    #[test]
    fn twenty_pages_with_rows_but_nobody_new_are_a_circle_and_empty_pages_are_not() {
        let mut loops = Loops::default();
        for page in 0..19 {
            assert_eq!(loops.notice(&token(&format!("b{page}")), 100, &with(0)), None);
        }
        assert_eq!(loops.notice(&token("empty"), 0, &with(0)), None);
        assert!(loops.notice(&token("last"), 100, &with(0)).is_some());

        let mut loops = Loops::default();
        for page in 0..400 {
            assert_eq!(loops.notice(&token(&format!("e{page}")), 0, &with(0)), None);
        }
        for page in 0..100 {
            let fresh = usize::from(page % 19 == 0);
            assert_eq!(
                loops.notice(&token(&format!("f{page}")), 100, &with(fresh)),
                None,
                "{page}"
            );
        }
    }

    #[test]
    fn empty_pages_are_believed_as_long_as_the_other_listing_can_be_and_no_longer() {
        /// How many are read of a workspace of so many users by then; on every fiftieth page are `rows` users who were seen.
        fn read(present: impl Fn(u64) -> u64, rows: usize) -> u64 {
            let mut loops = Loops::default();
            let given_up = (1..200_000_u64).find(|page| {
                let applied = Applied {
                    present: present(*page),
                    ..Applied::default()
                };
                let rows = if page.is_multiple_of(50) { rows } else { 0 };
                loops.notice(&token(&page.to_string()), rows, &applied).is_some()
            });
            given_up.unwrap_or(u64::MAX)
        }
        assert_eq!(read(|_| 40, 0), 504);
        // The whole other listing, in pages of 50 as of 100 users, of a workspace that is known or is just being read.
        assert_eq!(read(|_| 100_000, 0), 10_500);
        for paces_behind in [1, 5] {
            let arriving = |page: u64| (page / paces_behind * 50).min(100_000);
            assert!(read(arriving, 0) > 2_000 * paces_behind);
        }
        // Somebody who is known already, now and then, does not prolong it.
        assert!(read(|_| 40, 1) < 600);
    }

    #[test]
    fn people_without_end_are_not_believed_and_a_crowd_that_stays_the_same_is() {
        let crowd = |appeared| Applied {
            appeared,
            fresh: 100,
            present: MAX_USERS + 1,
            ..Applied::default()
        };
        assert!(Loops::default().notice(&token("a"), 100, &crowd(100)).is_some());
        assert_eq!(Loops::default().notice(&token("a"), 100, &crowd(0)), None);
    }
}
