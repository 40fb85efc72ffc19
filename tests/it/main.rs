//! Whole stories against the sandbox: arrange a world, act as a user would, look at what the peers received. And the real
//! binary, used as a person would.

mod between;
mod binary;
mod cli;
mod credentials;
mod daemon;
mod front;
mod polls;
mod secrets;
mod size;
mod stories;
mod world;
