//! Whole stories against the sandbox: arrange a world, act as a user would, look at what the peers received.

mod binary;
mod cli;
mod daemon;
mod secrets;
mod story;
