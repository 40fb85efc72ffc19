//! Disks that are full, read-only or broken, and state files that somebody deleted, truncated, overwrote or locked: the real binary
//! says what is wrong and what to do, goes on by itself when that is done, and makes nothing twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod refusals;
