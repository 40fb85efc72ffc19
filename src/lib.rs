//! `torq-connector`: the JumpCloud SaaS Management connector for Torq, as a stand-alone daemon.
//!
//! A library with a thin binary. The path of a user, which is the layout, too:
//!
//! ```text
//!  Torq ──pages──▶ torq ──▶ sync::collect ──▶ state ──pending work──▶ sync::deliver ──▶ jumpcloud ──▶ JumpCloud
//!                               ▲               │
//!                        daemon (schedule)      └──▶ status, users, events, reports: cli, web, metrics
//! ```
//!
//! Each room knows only what stands to its right here: [`cli`], [`daemon`], [`web`] → [`report`] → [`sync`] → [`torq`], [`jumpcloud`], [`state`]
//! → [`oauth`] → [`http`] → [`model`], [`config`].
//!
//! - [`config`]: a checked configuration, or everything that is wrong with one.
//! - [`http`]: the one way to send, and what an answer means. [`oauth`]: credentials on requests.
//! - [`torq`], [`jumpcloud`]: the two peers, one method for each request.
//! - [`state`]: what is known about a connector, in one SQLite file; what remains to be done is a query over it.
//! - [`sync`]: a run, which is a poll and the delivery that follows it.
//! - [`notify`]: telling a person what concerns them.
//! - [`daemon`]: runs on schedule, and takes orders. [`cli`]: the commands. [`web`]: the status page, health, metrics.
//! - [`view`]: the shapes that are shown, with [`wording`] for people, and [`invocation`] for commands that they can type; [`metrics`]
//!   for machines.
//! - [`report`]: answers for whoever must account for who has access, as of now or of a day that is past.
//! - [`sandbox`]: both peers on loopback, for demonstration and tests. It stands alone: it shares no code with the clients.
//!
//! Why it is built like this: `docs/architecture.md`.

pub mod cli;
pub mod config;
pub mod daemon;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod invocation;
pub mod jumpcloud;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod oauth;
pub mod report;
pub mod sandbox;
pub mod state;
pub mod sync;
pub mod torq;
pub mod view;
pub mod web;
pub mod wording;
