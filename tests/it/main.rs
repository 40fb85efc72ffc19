//! Whole stories against the sandbox: arrange a world, act as a user would, look at what the peers received. And the real
//! binary, used as a person would.

mod binary;
mod cli;
mod daemon;
mod polls;
mod secrets;
mod shipped;
mod stories;
mod supervisor;
mod world;
