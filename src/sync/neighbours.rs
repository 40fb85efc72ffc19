//! Connectors that deliver to the same application: what one of them would take away, another one may need.

use std::collections::HashSet;
use std::path::PathBuf;

use super::remove::{Obstacle, RemovalOutcome, or_keep};
use crate::config::{self, Config};
use crate::model::{ApplicationId, ConnectorName, EmailKey};
use crate::state::{self, StateError, Store};

/// Another connector, as far as it matters for whether it needs what this one would delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) name: ConnectorName,
    pub(super) console: String,
    application: String,
    org_id: Option<String>,
}

impl Neighbour {
    pub(super) fn of(connector: &config::Connector) -> Self {
        Self {
            name: connector.name.clone(),
            console: connector.jumpcloud.console_url.origin().ascii_serialization(),
            application: connector.jumpcloud.application.clone(),
            org_id: connector.jumpcloud.org_id.clone(),
        }
    }

    /// Whether both may deliver to the same application, by their configurations. Different service accounts can belong to one
    /// organisation, so only what is surely different is.
    pub(super) fn may_share(&self, other: &Self) -> bool {
        let apart = self.org_id.is_some() && other.org_id.is_some() && self.org_id != other.org_id;
        self.console == other.console && self.application == other.application && !apart
    }
}

/// All configured connectors, and where their states are.
#[derive(Clone, Debug, Default)]
pub struct Neighbourhood {
    pub(super) state_dir: PathBuf,
    all: Vec<Neighbour>,
}

impl Neighbourhood {
    /// Of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            state_dir: config.state_dir.clone(),
            all: config.connectors.iter().map(Neighbour::of).collect(),
        }
    }

    /// The states of the other connectors that deliver to this application.
    pub(super) fn sharing(
        &self,
        connector: &config::Connector,
        application: &ApplicationId,
    ) -> Result<Vec<Store>, Obstacle> {
        let this = Neighbour::of(connector);
        let mut sharing = Vec::new();
        for other in &self.all {
            if other.name == this.name || !other.may_share(&this) {
                continue;
            }
            let known = state::read(&self.state_dir, &other.name).and_then(|store| {
                let Some(store) = store else { return Ok(None) };
                let path = PathBuf::from(format!("the state of {}", other.name));
                let about = store.about().map_err(|source| StateError::Sql {
                    path,
                    source,
                    system: None,
                })?;
                Ok(Some((store, about)))
            });
            match known {
                Ok(Some((store, about))) => {
                    // Whoever is being removed, too, needs nothing any more.
                    if about.removing.is_none() && about.application.as_ref() == Some(application) {
                        sharing.push(store);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(Obstacle {
                        outcome: RemovalOutcome::Partial,
                        reason: format!(
                            "whether the connector {} needs what would be deleted is not known: {error}",
                            other.name
                        ),
                        action: format!(
                            "put that right, and repeat: torq-connector remove {}; {}",
                            this.name,
                            or_keep(&this.name)
                        ),
                    });
                }
            }
        }
        Ok(sharing)
    }
}

/// Which connectors deliver to the same application, and which accounts of ours they need.
pub(super) struct Shared {
    pub(super) names: Vec<String>,
    pub(super) needed: HashSet<EmailKey>,
}

impl Shared {
    /// Asks the other states whom they have. Blocks.
    pub(super) fn look(stores: Vec<Store>, ours: Vec<EmailKey>) -> state::Sql<Self> {
        let mut needed = HashSet::new();
        for key in ours {
            for store in &stores {
                if store.has_user(&key)? {
                    needed.insert(key);
                    break;
                }
            }
        }
        Ok(Self {
            names: stores.iter().map(|store| store.name().to_string()).collect(),
            needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(name: &str, console: &str, org_id: Option<&str>) -> Neighbour {
        Neighbour {
            name: ConnectorName::parse(name).unwrap(),
            console: console.to_owned(),
            application: "torq".to_owned(),
            org_id: org_id.map(str::to_owned),
        }
    }

    #[test]
    fn only_what_is_surely_another_organisation_does_not_share() {
        let us = "https://console.jumpcloud.com";
        let this = neighbour("a", us, Some("1"));
        assert!(this.may_share(&neighbour("b", us, Some("1"))));
        assert!(
            this.may_share(&neighbour("b", us, None)),
            "its credentials may belong to the same one"
        );
        assert!(!this.may_share(&neighbour("b", us, Some("2"))));
        assert!(!this.may_share(&neighbour("b", "https://console.eu.jumpcloud.com", None)));
    }
}
