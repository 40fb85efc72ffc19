//! The `torq-connector` command.

fn main() {}
