//! The `torq-connector` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(torq_connector::cli::main())
}
