//! What JumpCloud has, for whoever compares it with Torq: the accounts of the application, as they are. Reads only.

use super::{Connector, Halt, application};
use crate::http::FailureKind;
use crate::jumpcloud::Account;

/// What was found of the accounts of the application.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Those that can be read; `None`: there is no such application.
    pub accounts: Option<Vec<Account>>,
    /// How many cannot be read.
    pub unread: u64,
}

impl Connector {
    /// Reads all accounts of the application from JumpCloud.
    ///
    /// # Errors
    /// When JumpCloud does not answer or refuses.
    pub async fn list_accounts(&self) -> Result<Listed, Halt> {
        self.has_secrets()?;
        let about = self.state.call(|store| store.about()).await?;
        let id = match about.application {
            Some(known) => Some(known),
            None => {
                let catalog_app_id = self.config.jumpcloud.application.as_str();
                match application::search_application(&self.jumpcloud, catalog_app_id).await {
                    Ok(found) => found,
                    Err(failure) => return Err(application::refusal(&self.jumpcloud, failure, false).await),
                }
            }
        };
        let Some(id) = id else { return Ok(Listed::default()) };
        let mut pages = self.jumpcloud.accounts(&id);
        let mut accounts = Vec::new();
        loop {
            match pages.next().await {
                Ok(Some(page)) => accounts.extend(page),
                Ok(None) => break,
                Err(failure) if failure.kind == FailureKind::NotFound => return Ok(Listed::default()),
                Err(failure) => return Err(application::refusal(&self.jumpcloud, failure, false).await),
            }
            self.go_on()?;
        }
        Ok(Listed {
            accounts: Some(accounts),
            unread: pages.unread().len() as u64,
        })
    }
}
