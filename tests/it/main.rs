//! Whole stories against the sandbox: arrange a world, act as a user would, look at what the peers received. And the real
//! binary, used as a person would.

mod acting;
mod backup;
mod between;
mod binary;
mod cli;
mod corpus;
mod credentials;
mod daemon;
mod deaths;
mod disk;
mod docs;
mod forget;
mod front;
mod http2;
mod interpose;
mod laws;
mod life;
mod many;
mod messages;
mod network;
mod notify;
mod polls;
mod reload;
mod remove;
mod retention;
mod secrets;
mod shipped;
mod size;
mod stories;
mod supervisor;
mod terminal;
mod time;
mod world;
