//! `torq-connector`: the JumpCloud SaaS Management connector for Torq, as a stand-alone daemon.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod http;
pub mod jumpcloud;
pub mod metrics;
pub mod model;
pub mod oauth;
pub mod sandbox;
pub mod state;
pub mod sync;
pub mod torq;
pub mod view;
pub mod web;
pub mod wording;
