//! What the configuration says of a connector, as far as it matters to whoever looks at it. Nothing here is secret: no client
//! id, no name of a file, and of an address that is told of things no more than its host.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::config::{Connector, MaxRemovals, Notify, Occasion, Removals, UserFilter};

/// The settings that are shown.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time from one poll's start to the next.
    pub poll_interval: Duration,
    /// What happens to accounts of removed users.
    pub removals: Removals,
    /// How many removals within 24 hours are believed.
    pub max_removals: MaxRemovals,
    /// How long the past is kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// Who is told of what; `None`: nobody of anything.
    pub told: Option<String>,
    /// When the Torq API key expires, if the administrator said so.
    pub key_expires: Option<Date>,
    /// The host of Torq's API.
    pub torq: String,
    /// The host of JumpCloud's console.
    pub jumpcloud: String,
    /// The JumpCloud organisation, where it is named.
    pub org_id: Option<String>,
    /// The application in SaaS Management.
    pub application: String,
    /// Who is delivered.
    pub users: UserFilter,
}

impl Settings {
    /// The settings of a connector.
    pub fn of(config: &Connector) -> Self {
        let host = |url: &url::Url| url.host_str().unwrap_or_default().to_owned();
        Self {
            poll_interval: config.poll_interval,
            removals: config.removals,
            max_removals: config.max_removals,
            retention: config.retention,
            told: config.notify.as_ref().map(told),
            key_expires: config.torq.key_expires,
            torq: host(&config.torq.api_url),
            jumpcloud: host(&config.jumpcloud.console_url),
            org_id: config.jumpcloud.org_id.clone(),
            application: config.jumpcloud.application.clone(),
            users: config.users.clone(),
        }
    }

    /// How many days are left of the API key, when it is time to speak of it; negative when it is over.
    pub(super) fn key_days(&self, now: Timestamp) -> Option<i32> {
        crate::config::days_left(self.key_expires?, now).filter(|days| *days <= crate::config::KEY_SOON)
    }

    /// As the defaults make them.
    #[cfg(test)]
    pub(crate) fn by_default() -> Self {
        Self {
            poll_interval: Duration::from_secs(60),
            removals: Removals::Report,
            max_removals: MaxRemovals::Percent(10.0),
            retention: Some(Duration::from_secs(400 * 24 * 60 * 60)),
            told: None,
            key_expires: None,
            torq: "api.torq.io".to_owned(),
            jumpcloud: "console.jumpcloud.com".to_owned(),
            org_id: None,
            application: "torq".to_owned(),
            users: UserFilter::default(),
        }
    }
}

/// Who is told, and of what.
fn told(notify: &Notify) -> String {
    let hook = notify.webhook.as_ref().map(|webhook| webhook.url.host());
    let program = notify.command.as_ref().map(|_| "a program");
    let whom: Vec<&str> = hook.into_iter().chain(program).collect();
    let what: Vec<&str> = notify.occasions.iter().map(|occasion| occasion.as_str()).collect();
    let what = match what.len() == Occasion::ALL.len() {
        true => "everything that concerns a person".to_owned(),
        false => what.join(", "),
    };
    format!("{}, of {what}", whom.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn of_who_is_told_only_the_host_is_shown() {
        let text = "
            [connectors.main]
            retention = \"90d\"
            torq = { region = \"eu\", client_id = \"id\", client_secret = \"S3CR3T\" }
            jumpcloud = { region = \"us\", client_id = \"id\", client_secret = \"S3CR3T\" }
            notify = { url = \"https://hooks.example.com/services/S3CR3T\", secret = \"S3CR3T-longer-than-that-S3CR3T\", events = [\"held\", \"parked\"] }
        ";
        let config = parse(text, std::path::Path::new("/"), Some(0o600), &Default::default()).unwrap();
        let settings = Settings::of(&config.connectors[0]);
        assert_eq!(settings.told.as_deref(), Some("hooks.example.com, of held, parked"));
        assert_eq!(settings.retention, Some(Duration::from_secs(90 * 24 * 60 * 60)));
        assert!(!format!("{settings:?}").contains("S3CR3T"), "{settings:?}");
    }
}
