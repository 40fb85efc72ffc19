//! Whole stories against the sandbox: arrange a world, act as a user would, look at what the peers received. And the real
//! binary, used as a person would.

mod binary;
mod cli;
mod daemon;
mod laws;
mod many;
mod polls;
mod secrets;
mod stories;
mod world;
