//! What JumpCloud has, for whoever compares it with Torq: the accounts of the application, as they are. Reads only.

use super::{Halt, application};
use crate::config;
use crate::http::FailureKind;
use crate::jumpcloud::{Account, JumpCloud};
use crate::model::ApplicationId;

/// What was found of the accounts of the application.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Those that can be read; `None`: there is no such application.
    pub accounts: Option<Vec<Account>>,
    /// How many cannot be read.
    pub unread: u64,
}

/// Reads all accounts of a connector's application from JumpCloud. `known`: the application, as far as it is known.
///
/// # Errors
/// When JumpCloud does not answer or refuses.
pub async fn list_accounts(
    config: &config::Connector,
    jumpcloud: &JumpCloud,
    known: Option<ApplicationId>,
) -> Result<Listed, Halt> {
    if let Some(halt) = Halt::of_secrets(config) {
        return Err(halt);
    }
    let id = match known {
        Some(known) => Some(known),
        None => match application::search_application(jumpcloud, &config.jumpcloud.application).await {
            Ok(found) => found,
            Err(failure) => return Err(application::refusal(jumpcloud, failure, false).await),
        },
    };
    let Some(id) = id else { return Ok(Listed::default()) };
    let mut pages = jumpcloud.accounts(&id);
    let mut accounts = Vec::new();
    loop {
        match pages.next().await {
            Ok(Some(page)) => accounts.extend(page),
            Ok(None) => break,
            Err(failure) if failure.kind == FailureKind::NotFound => return Ok(Listed::default()),
            Err(failure) => return Err(application::refusal(jumpcloud, failure, false).await),
        }
    }
    Ok(Listed {
        accounts: Some(accounts),
        unread: pages.unread().len() as u64,
    })
}
