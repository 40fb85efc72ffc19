//! Connectors that are there already and work with what the new one works with. That is allowed, and better known than found out.

use crate::cli::tell;
use crate::config::{Config, Connector, JumpCloudCredentials};
use crate::model::{ApplicationId, ConnectorName};
use crate::state;

/// Tells of those who read the same workspace, and of those who deliver to the same application. `found`: the application that the new
/// connector would deliver to, where a test saw it.
pub(super) fn tell_of_others(config: &Config, name: &ConnectorName, found: Option<&ApplicationId>) {
    let Some(this) = config.connectors.iter().find(|one| one.name == *name) else {
        return;
    };
    for other in config.connectors.iter().filter(|one| one.name != *name) {
        let delivers_to = || {
            let store = state::read(&config.state_dir, &other.name).ok().flatten()?;
            store.about().ok()?.application
        };
        if share_workspace(this, other) {
            tell(&format!(
                "note: the connector {} has the same Torq API key: both read the same workspace",
                other.name
            ));
        }
        let same_console = this.jumpcloud.console_url == other.jumpcloud.console_url;
        if share_application(this, other)
            || same_console && found.is_some_and(|found| delivers_to().as_ref() == Some(found))
        {
            tell(&format!(
                "note: the connector {} delivers to the same application ({}) of the same JumpCloud organisation: they share its \
                 accounts, and neither deletes any",
                other.name, this.jumpcloud.application
            ));
        }
    }
}

fn share_workspace(this: &Connector, other: &Connector) -> bool {
    this.torq.api_url == other.torq.api_url && this.torq.client_id == other.torq.client_id
}

/// Whether both surely deliver to one application, by what is configured. Other service accounts, and every API key, may be another
/// organisation's.
fn share_application(this: &Connector, other: &Connector) -> bool {
    let account = |connector: &Connector| match &connector.jumpcloud.credentials {
        JumpCloudCredentials::ServiceAccount { client_id, .. } => Some(client_id.clone()),
        JumpCloudCredentials::ApiKey(_) => None,
    };
    let (here, there) = (&this.jumpcloud, &other.jumpcloud);
    let same_account = account(this).is_some_and(|id| account(other) == Some(id));
    let same_organisation = match (&here.org_id, &there.org_id) {
        (Some(one), Some(another)) => one == another,
        _ => same_account && here.org_id == there.org_id,
    };
    here.console_url == there.console_url && here.application == there.application && same_organisation
}
