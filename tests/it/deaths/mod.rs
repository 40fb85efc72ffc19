//! Death at any instant: the real binary is killed at every write in turn, and at random, and whatever comes of it is judged by
//! what the sandbox's journal says, not only by how things stand at the end.
//!
//! The ordinary suite runs a part of it; `.ci/deaths` runs all (`DEATHS`: how many deaths a random story has at least).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod boundaries;
mod random;

use torq_connector::sandbox::{Endpoint, RequestLog, WorldHandle};

/// How many deaths were asked for; `None` in the ordinary suite.
fn wanted() -> Option<u64> {
    let text = std::env::var("DEATHS").ok()?;
    Some(text.parse().expect("DEATHS is a number"))
}

/// The pages that Torq handed out so far, in order: listing and page token.
fn pages(world: &WorldHandle) -> Vec<(String, String)> {
    let name = |one: &RequestLog, parameter| one.parameter(parameter).unwrap_or_default().to_owned();
    let requests = world.requests().into_iter();
    requests
        .filter(|one| one.endpoint == Endpoint::TorqUsers && matches!(one.handled, Some(200..=299)))
        .map(|one| (name(&one, "sso_provision"), name(&one, "page_token")))
        .collect()
}

/// Of the pages that were asked for before a death, at most one of each listing was asked for again.
fn assert_goes_on(before: &[(String, String)], after: &[(String, String)]) {
    for listing in ["true", "false"] {
        let again: Vec<_> = after
            .iter()
            .filter(|page| page.0 == listing && before.contains(page))
            .collect();
        assert!(again.len() <= 1, "asked for again: {again:?}");
    }
}
