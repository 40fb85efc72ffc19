//! What must hold, each room about one side of it. The harness is [`crate::world`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adoption;
mod dry_run;
mod elsewhere;
mod histories;
mod knowledge;
mod late_deletions;
mod licences;
mod lists;
mod lost_answers;
mod offboarding;
mod other_sides;
mod pages;
mod refusals;
mod removals;
mod renames;
mod resuming;
mod shifting;
mod silence;
mod thousand;
mod tokens;
mod unoffered;
mod weather;
