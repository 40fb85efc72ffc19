//! What a person should do about a run that did not come to its end. It depends on what failed, on where the connector's settings
//! come from, and on whether anything tries again.

use super::Halt;
use crate::config::{self, Connector, JumpCloudCredentials, Secret, SecretSource};
use crate::http::{Cause, Failure, FailureKind};
use crate::model::Peer;
use crate::wording::BY_ITSELF;

/// Who tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The daemon, on its schedule.
    ByItself,
    /// Nobody: a command is over. With it a person tries again.
    Command(&'static str),
    /// A person who is setting the connector up at this moment: it is configured nowhere yet.
    SettingUp,
}

impl Halt {
    /// What a person should do; `None` when nothing.
    pub fn action(&self, connector: &Connector, again: Again) -> Option<String> {
        match self {
            Halt::Reconnect { failure } => Some(refused(failure, connector, again)),
            Halt::NoSecret { .. } => Some(match then_again(again, connector) {
                None => format!("put that right; {BY_ITSELF}, within a minute"),
                Some(then) => format!("put that right, {then}"),
            }),
            Halt::NotLicensed(_) => Some(format!(
                "add SaaS Management to the JumpCloud organisation, or check jumpcloud.org_id; {}",
                then_again(again, connector).unwrap_or_else(|| "it is tried again with every poll".to_owned())
            )),
            Halt::Unavailable(failure) => Some(unavailable(failure, connector, again)),
            Halt::Stopped | Halt::State(_) => None,
        }
    }
}

/// About a peer that cannot be reached or fails.
fn unavailable(failure: &Failure, connector: &Connector, again: Again) -> String {
    let Some(then) = then_again(again, connector) else {
        return again_by_itself(failure.cause(), failure.peer);
    };
    let advice = match again {
        Again::SettingUp => about_cause_in(failure.cause(), failure.peer, ""),
        Again::ByItself | Again::Command(_) => about_cause(failure.cause(), failure.peer),
    };
    match advice {
        None => format!("wait a while, {then}"),
        Some(advice) => format!("{advice}; {then}"),
    }
}

/// How a person tries again; `None` where that happens by itself.
fn then_again(again: Again, connector: &Connector) -> Option<String> {
    match again {
        Again::ByItself => None,
        Again::Command(command) => Some(format!("then again: torq-connector {command} {}", connector.name)),
        Again::SettingUp => Some("then test it again".to_owned()),
    }
}

/// What a person can do about a peer that fails for this cause, where it is asked again by itself.
pub fn again_by_itself(cause: Cause, peer: Peer) -> String {
    match about_cause(cause, peer) {
        None => format!("nothing: {BY_ITSELF}"),
        Some(advice) => format!("{advice}; {BY_ITSELF}"),
    }
}

/// What a person can look at when a peer cannot be reached for this cause; `None` when there is nothing.
pub fn about_cause(cause: Cause, peer: Peer) -> Option<String> {
    about_cause_in(cause, peer, " in the configuration")
}

/// The same. `there`: where the settings are, if they are anywhere yet.
fn about_cause_in(cause: Cause, peer: Peer, there: &str) -> Option<String> {
    let base = match peer {
        Peer::Torq => "torq.region (or torq.api_url and torq.token_url)",
        Peer::JumpCloud => "jumpcloud.region (or jumpcloud.console_url and jumpcloud.token_url)",
    };
    Some(match cause {
        Cause::UnknownName => format!("check {base}{there}, and whether this machine resolves names (DNS)"),
        Cause::Untrusted => {
            "if a proxy inspects TLS here, set network.ca_file to its authority; if none does, somebody else answers there"
                .to_owned()
        }
        Cause::NotValidNow => {
            "is this machine's clock right? If it is, somebody must renew the certificate there, or a proxy inspects TLS with an old one"
                .to_owned()
        }
        Cause::OtherName => format!(
            "somebody else answers there; do {base}, the name server and the proxy (HTTPS_PROXY) lead where they should?"
        ),
        Cause::NoTls => format!("is a proxy or a login page in between? Check {base} and the proxy (HTTPS_PROXY)"),
        Cause::NotConnected => format!("check the network: a firewall in between, or a proxy that is needed (HTTPS_PROXY); and {base}"),
        Cause::ProxyAway => "check the proxy's address (HTTPS_PROXY), and whether it works; NO_PROXY names what needs none".to_owned(),
        Cause::ProxyUntrusted => "set network.ca_file to the authority of the proxy, or name it with http:// in HTTPS_PROXY".to_owned(),
        Cause::ProxyAsks => {
            "give the proxy's user name and password in HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT, with %40 for @ and so on".to_owned()
        }
        Cause::ProxyRefused => {
            format!("the proxy must let us through to this address (its log says why it does not); or check HTTPS_PROXY, NO_PROXY and {base}")
        }
        Cause::NoTokenEndpoint => match peer {
            Peer::Torq => format!("check torq.region (or torq.token_url){there}"),
            Peer::JumpCloud => format!("check jumpcloud.region (or jumpcloud.token_url){there}"),
        },
        Cause::Other => return None,
    })
}

/// About a refusal.
fn refused(failure: &Failure, connector: &Connector, again: Again) -> String {
    let then = then(connector, again, false);
    match (failure.peer, failure.kind) {
        (Peer::Torq, FailureKind::Credentials) => {
            let secret = &connector.torq.client_secret;
            format!(
                "check the client id ({}), {} and the client secret ({}); if the key is revoked or expired, make a new \
                 API key in Torq (a service key, with the scope user.read), or extend the old one there; {}",
                connector.torq.client_id,
                place(&connector.torq.token_url),
                origin(connector, secret, "TORQ__CLIENT_SECRET"),
                self::then(connector, again, secret.fixed)
            )
        }
        (Peer::Torq, FailureKind::Permission) => {
            format!("give the role of the API key the scope user.read in Torq; {then}")
        }
        (Peer::Torq, FailureKind::License) => {
            format!("look at the plan of the workspace in Torq, which answers that it is to be paid; {then}")
        }
        (Peer::Torq, _) => {
            format!("check torq.region (or torq.api_url){}", look_closer(again))
        }
        (Peer::JumpCloud, FailureKind::Credentials) => jumpcloud_credentials(connector, again),
        (Peer::JumpCloud, FailureKind::Permission) => format!(
            "give the JumpCloud service account (or the administrator of the API key) a role that may read the directory and manage \
             SaaS Management; {then}"
        ),
        (Peer::JumpCloud, _) => format!(
            "check jumpcloud.region, jumpcloud.org_id and jumpcloud.application{}",
            look_closer(again)
        ),
    }
}

fn jumpcloud_credentials(connector: &Connector, again: Again) -> String {
    let place = place(&connector.jumpcloud.console_url);
    match &connector.jumpcloud.credentials {
        JumpCloudCredentials::ServiceAccount {
            client_id,
            client_secret,
        } => format!(
            "check the client id ({client_id}), {place} and the client secret ({}); if it is revoked or expired, make a \
             new one for the JumpCloud service account; {}",
            origin(connector, client_secret, "JUMPCLOUD__CLIENT_SECRET"),
            then(connector, again, client_secret.fixed)
        ),
        JumpCloudCredentials::ApiKey(key) => format!(
            "check {place} and the API key ({}); if it is revoked or expired, make a new one in JumpCloud; {}",
            origin(connector, key, "JUMPCLOUD__API_KEY"),
            then(connector, again, key.fixed)
        ),
    }
}

/// How it goes on once that is done. What is `fixed` for as long as a process lives, only another process reads again.
fn then(connector: &Connector, again: Again, fixed: bool) -> String {
    let reconnect = || format!("then: torq-connector reconnect {}", connector.name);
    match (again, fixed) {
        (Again::ByItself, true) => "then restart the service, which reads it at its start only".to_owned(),
        (Again::ByItself, false) => reconnect(),
        (Again::Command("check") | Again::SettingUp, _) | (Again::Command(_), true) => {
            then_again(again, connector).unwrap_or_else(reconnect)
        }
        (Again::Command(_), false) => reconnect(),
    }
}

/// Where more is said about a setting that seems to be wrong.
fn look_closer(again: Again) -> &'static str {
    match again {
        Again::Command("check") => " in the configuration",
        Again::SettingUp => "",
        Again::ByItself | Again::Command(_) => " in the configuration; torq-connector check says more",
    }
}

/// Where a secret comes from, in words. `key`: what the end of its variable would be.
fn origin(connector: &Connector, secret: &Secret, key: &str) -> String {
    match &secret.source {
        SecretSource::Literal => "written in the configuration".to_owned(),
        SecretSource::Given => "as you gave it".to_owned(),
        SecretSource::Environment => format!(
            "from the environment variable {}",
            config::variable_of(&connector.name, key)
        ),
        SecretSource::File(path) => format!("in {}", path.display()),
    }
}

/// Where the peer is: in a region, or at an address that was given instead of one.
fn place(url: &url::Url) -> String {
    if config::is_of_a_region(url) {
        format!("the region ({})", url.host_str().unwrap_or_default())
    } else {
        format!("the address ({})", url)
    }
}
