//! Forty ways for a connector to be broken, and what its status says of each.

use std::path::Path;

use torq_connector::model::ConnectorName;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Licence, PageTokens, WorldHandle};
use torq_connector::state::{Lock, State};

use super::wild::Wild;
use crate::binary::Connector;

/// A connector that is about to be broken.
pub struct Patient<'a> {
    pub connector: Connector,
    pub world: WorldHandle,
    pub wild: &'a Wild,
    pub state_dir: &'a Path,
    /// What has to last as long as the daemon.
    pub kept: Vec<Lock>,
}

impl Patient<'_> {
    fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.connector.settings.retain(|(known, _)| *known != key);
        self.connector.settings.push((key, value.into()));
    }

    fn fault(&self, endpoint: Endpoint, fault: Fault) {
        self.world.fault(FaultRule::always(endpoint, fault));
    }

    fn name(&self) -> ConnectorName {
        ConnectorName::parse(&self.connector.name).unwrap()
    }

    fn database(&self) -> std::path::PathBuf {
        self.state_dir.join(format!("{}.db", self.connector.name))
    }

    fn pages(&self, tokens: PageTokens) {
        self.world.behave(|behaviour| {
            behaviour.page_tokens = tokens;
            behaviour.torq_page_cap = 1;
        });
    }
}

/// A way to be broken.
pub struct Ailment {
    pub name: &'static str,
    pub strike: fn(&mut Patient<'_>),
    /// The state that is shown.
    pub state: &'static str,
    /// Words of the reason that is shown.
    pub says: &'static [&'static str],
    /// Whether `/readyz` names it.
    pub unready: bool,
}

const fn ailment(
    name: &'static str,
    state: &'static str,
    says: &'static [&'static str],
    strike: fn(&mut Patient<'_>),
) -> Ailment {
    Ailment {
        name,
        strike,
        state,
        says,
        unready: true,
    }
}

const RECONNECT: &str = "reconnect_required";
const RETRYING: &str = "retrying";

pub const AILMENTS: [Ailment; 40] = [
    ailment("wrong Torq secret", RECONNECT, &["Torq", "invalid_client"], |p| {
        p.set("torq.client_secret", "wrong")
    }),
    ailment("revoked Torq key", RECONNECT, &["Torq", "invalid_client"], |p| {
        p.world.revoke_torq_key()
    }),
    ailment("no user.read", RECONNECT, &["user.read"], |p| {
        p.world.set_torq_scope(false)
    }),
    ailment("Torq issues no tokens", RETRYING, &["get a token", "503"], |p| {
        p.fault(Endpoint::TorqToken, Fault::status(503))
    }),
    ailment(
        "a portal before Torq's tokens",
        RETRYING,
        &["get a token", "HTML"],
        |p| {
            p.set("torq.token_url", format!("http://{}/token", p.wild.portal));
        },
    ),
    ailment(
        "Torq's token answer is something else",
        RETRYING,
        &["get a token"],
        |p| p.fault(Endpoint::TorqToken, Fault::WrongType),
    ),
    ailment("Torq's token endpoint hangs", RETRYING, &["no complete answer"], |p| {
        p.set("torq.token_url", format!("http://{}/token", p.wild.silent));
    }),
    ailment("Torq's token endpoint resets", RETRYING, &["Torq: "], |p| {
        p.set("torq.token_url", format!("http://{}/token", p.wild.resets));
    }),
    ailment("nobody listens at Torq", RETRYING, &["Torq: "], |p| {
        p.set("torq.token_url", format!("http://{}/token", p.wild.closed));
        p.set("torq.api_url", format!("http://{}/public/v1alpha", p.wild.closed));
    }),
    ailment(
        // A redirect says that a token has expired, which a new one cannot have: it is somebody in between who redirects.
        "tokens that are never good",
        RETRYING,
        &["list users", "302"],
        |p| {
            p.fault(Endpoint::TorqUsers, Fault::ExpireTokensFirst);
        },
    ),
    ailment("503 for ever", RETRYING, &["list users", "503"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::status(503))
    }),
    ailment("429 for ever", RETRYING, &["list users", "429"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::status(429))
    }),
    ailment(
        "a pause of an hour",
        RETRYING,
        &["list users", "asked for a pause"],
        |p| {
            let fault = Fault::Status {
                status: 429,
                retry_after: Some("3600".to_owned()),
                body: String::new(),
            };
            p.fault(Endpoint::TorqUsers, fault);
        },
    ),
    ailment("the list hangs", RETRYING, &["list users", "no complete answer"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::Hang)
    }),
    ailment("the list is reset", RETRYING, &["list users"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::Reset)
    }),
    ailment("the list is a page of HTML", RETRYING, &["list users", "HTML"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::Html)
    }),
    ailment("the list is not UTF-8", RETRYING, &["list users", "UTF-8"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::NotUtf8)
    }),
    ailment("the list is something else", RETRYING, &["list users"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::WrongType)
    }),
    ailment("the list is cut short", RETRYING, &["list users"], |p| {
        p.fault(Endpoint::TorqUsers, Fault::CutShort)
    }),
    ailment(
        "the list trickles",
        RETRYING,
        &["list users", "no complete answer"],
        |p| {
            p.set("torq.api_url", format!("http://{}/public/v1alpha", p.wild.drips));
        },
    ),
    ailment("the list is gigabytes", RETRYING, &["list users", "larger than"], |p| {
        p.set("torq.api_url", format!("http://{}/public/v1alpha", p.wild.floods));
    }),
    ailment("that is no HTTP", RETRYING, &["list users"], |p| {
        p.set("torq.api_url", format!("http://{}/public/v1alpha", p.wild.babbles));
    }),
    ailment("page tokens A, A", RETRYING, &["repeats a page token"], |p| {
        p.pages(PageTokens::Repeat)
    }),
    ailment("page tokens A, B, A", RETRYING, &["repeats a page token"], |p| {
        p.pages(PageTokens::Alternate)
    }),
    ailment(
        "fresh tokens for the same page",
        RETRYING,
        &["repeats its users"],
        |p| p.pages(PageTokens::FreshForSamePage),
    ),
    // Nothing is wrong with it, as far as anybody can say: it collects, and shows its progress.
    ailment("a list without an end", "collecting", &[], |p| {
        p.set("torq.api_url", format!("http://{}/public/v1alpha", p.wild.endless));
    }),
    ailment("no such API", RECONNECT, &["list users", "404"], |p| {
        let url = p
            .connector
            .settings
            .iter()
            .find(|(key, _)| *key == "torq.api_url")
            .unwrap()
            .1
            .replace("public/", "");
        p.set("torq.api_url", url);
    }),
    ailment(
        "wrong JumpCloud secret",
        RECONNECT,
        &["JumpCloud", "invalid_client"],
        |p| p.set("jumpcloud.client_secret", "wrong"),
    ),
    ailment(
        "a service account that may nothing",
        RECONNECT,
        &["JumpCloud", "403"],
        |p| {
            p.world.behave(|behaviour| behaviour.jumpcloud_forbidden = true);
        },
    ),
    ailment("no licence (402)", "not_licensed", &["no licence"], |p| {
        p.world.behave(|behaviour| behaviour.licence = Licence::PaymentRequired);
    }),
    ailment("no licence (403)", "not_licensed", &["no licence"], |p| {
        p.world.behave(|behaviour| behaviour.licence = Licence::Forbidden)
    }),
    ailment(
        "JumpCloud issues no tokens",
        RETRYING,
        &["JumpCloud", "get a token"],
        |p| {
            p.fault(Endpoint::JumpCloudToken, Fault::status(503));
        },
    ),
    ailment("an organisation must be named", RECONNECT, &["x-org-id"], |p| {
        p.world.set_org_id(Some("5f0c"))
    }),
    ailment("JumpCloud fails", RETRYING, &["list applications", "500"], |p| {
        p.fault(Endpoint::Applications, Fault::status(500))
    }),
    ailment("a portal before JumpCloud", RETRYING, &["JumpCloud", "HTML"], |p| {
        p.fault(Endpoint::Accounts, Fault::Html)
    }),
    ailment("JumpCloud hangs", RETRYING, &["JumpCloud", "no complete answer"], |p| {
        p.fault(Endpoint::Accounts, Fault::Hang)
    }),
    Ailment {
        unready: false,
        ..ailment(
            "account writes are not offered",
            "report_only",
            &["does not offer"],
            |p| {
                p.world.behave(|behaviour| behaviour.account_create_refused = Some(404));
            },
        )
    },
    ailment("a state that is garbage", RETRYING, &["is damaged"], |p| {
        std::fs::write(p.database(), "this is no database".repeat(100)).unwrap();
    }),
    ailment("a state that another process holds", RETRYING, &["in use by"], |p| {
        p.kept.push(Lock::take(p.state_dir, &p.name()).unwrap());
    }),
    ailment("a state of a newer version", RETRYING, &["newer torq-connector"], |p| {
        drop(State::open(p.state_dir, &p.name()).unwrap());
        rusqlite::Connection::open(p.database())
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
    }),
];
