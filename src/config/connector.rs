//! The walker's way through one connector: both sides, their regions and credentials, and who is delivered.

use std::collections::BTreeMap;

use url::Url;

use super::check::{Checked, Section, Told, Walker, host_name};
use super::value::{Given, is_loopback};
use super::{Connector, JumpCloud, JumpCloudCredentials, Problem, Removals, Secret, Torq, UserFilter, keys};
use crate::model::{ConnectorName, EmailKey};

/// A region and its two endpoints. They belong together: a client that switched only one of them was broken.
#[derive(Clone, Copy)]
struct Region {
    base: &'static str,
    token: &'static str,
}

const TORQ_REGIONS: &[(&str, Region)] = &[
    (
        "us",
        Region {
            base: "https://api.torq.io/public/v1alpha",
            token: "https://auth.torq.io/v1/auth/token",
        },
    ),
    (
        "eu",
        Region {
            base: "https://api.eu.torq.io/public/v1alpha",
            token: "https://auth.eu.torq.io/v1/auth/token",
        },
    ),
];

const JUMPCLOUD_REGIONS: &[(&str, Region)] = &[
    (
        "us",
        Region {
            base: "https://console.jumpcloud.com",
            token: "https://admin-oauth.id.jumpcloud.com/oauth2/token",
        },
    ),
    (
        "eu",
        Region {
            base: "https://console.eu.jumpcloud.com",
            token: "https://admin-oauth.id.eu.jumpcloud.com/oauth2/token",
        },
    ),
    (
        "in",
        Region {
            base: "https://console.in.jumpcloud.com",
            token: "https://admin-oauth.id.in.jumpcloud.com/oauth2/token",
        },
    ),
];

/// Whether this is an endpoint of one of the regions, and no other address that was configured.
pub fn is_of_a_region(url: &Url) -> bool {
    let regions = TORQ_REGIONS.iter().chain(JUMPCLOUD_REGIONS);
    let known = regions.flat_map(|(_, region)| [region.base, region.token]);
    known
        .into_iter()
        .any(|known| Url::parse(known).is_ok_and(|known| known == *url))
}

/// Base URL and token endpoint of one side.
type Endpoints = (Url, Url);

/// Which of the two ways to authenticate to JumpCloud is configured.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    ServiceAccount,
    ApiKey,
}

impl Walker<'_> {
    /// All connectors with which nothing is wrong, by name.
    pub(super) fn connectors(&mut self, section: &Section<'_>) -> Checked<Vec<Connector>> {
        let names = section.names();
        if names.is_empty() {
            let prefix = format!("{}.", section.key);
            let told = |problem: &Problem| problem.key.starts_with(&prefix);
            if self.is_broken(&section.key) || self.problems.iter().any(told) {
                return Err(Told);
            }
            return Err(self.tell(Problem::new(
                &section.key,
                "no connector is configured; add a section [connectors.NAME] with [connectors.NAME.torq] and \
                 [connectors.NAME.jumpcloud]",
            )));
        }
        self.refuse_equal_names(section, &names);
        let mut good = Vec::new();
        for name in names {
            // What is wrong with one was told.
            good.extend(self.connector_or_slip(&section.section(name), name));
        }
        Ok(good)
    }

    /// A connector. One that only the environment names, that lacks something and is called almost like one in the file, is a slip
    /// in a variable's name: everything that it lacks is no news.
    fn connector_or_slip(&mut self, section: &Section<'_>, name: &str) -> Checked<Connector> {
        let before = self.problems.len();
        let checked = self.connector(section, name);
        if checked.is_ok() || self.in_file.contains(name) {
            return checked;
        }
        let meant = keys::nearest(name, self.in_file.iter().map(String::as_str)).map(str::to_owned);
        let (Some(meant), Some(variable)) = (meant, section.variable_below()) else {
            return checked;
        };
        self.problems.truncate(before);
        Err(self.tell(Problem::new(
            &section.key,
            format!("only {variable} names it; did you mean {meant}?"),
        )))
    }

    /// Names become names of files, which some file systems compare without regard to case.
    fn refuse_equal_names(&mut self, section: &Section<'_>, names: &[&str]) {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for name in names {
            if let Some(earlier) = seen.insert(name.to_lowercase(), name) {
                self.tell(Problem::new(
                    keys::join(&section.key, &keys::quoted(name)),
                    format!("the connector {earlier:?} has the same name but for case; rename one of them"),
                ));
            }
        }
    }

    fn connector(&mut self, section: &Section<'_>, name: &str) -> Checked<Connector> {
        self.begin_connector(name);
        let parsed = ConnectorName::parse(name).ok_or_else(|| {
            self.tell(Problem::new(
                &section.key,
                format!("a connector's name must be {}", ConnectorName::ALLOWED),
            ))
        });
        let torq = section.section("torq");
        let jumpcloud = section.section("jumpcloud");

        let way = self.way(&jumpcloud);
        let token_needed = !matches!(way, Ok(Way::ApiKey));
        let torq_urls = self.endpoints(&torq, TORQ_REGIONS, "api_url", true);
        let jumpcloud_urls = self.endpoints(&jumpcloud, JUMPCLOUD_REGIONS, "console_url", token_needed);
        let least = match (&torq_urls, &jumpcloud_urls) {
            (Ok(torq), Ok(jumpcloud)) if all_rehearsal(torq) && all_rehearsal(jumpcloud) => "1s",
            _ => "1m",
        };

        let poll_interval = self.required(section, "poll_interval", "a duration", |given| {
            given.duration(least, "31d")
        });
        let removals = self.required(section, "removals", "report or delete", |given| {
            given.one_of(&[("report", Removals::Report), ("delete", Removals::Delete)])
        });
        let max_removals = self.required(section, "max_removals", "a limit", Given::max_removals);
        let retention = self.required(section, "retention", "a duration", |given| {
            given.duration_or_off("7d", "36500d")
        });
        let torq = self.torq(&torq, torq_urls);
        let jumpcloud = self.jumpcloud(&jumpcloud, way, jumpcloud_urls);
        let users = self.users(&section.section("users"));
        let notify = self.notify(&section.section("notify"));
        Ok(Connector {
            name: parsed?,
            poll_interval: poll_interval?,
            removals: removals?,
            max_removals: max_removals?,
            retention: retention?,
            torq: torq?,
            jumpcloud: jumpcloud?,
            users: users?,
            notify: notify?,
        })
    }

    fn torq(&mut self, section: &Section<'_>, urls: Checked<Endpoints>) -> Checked<Torq> {
        let client_id = self.client_id(section, "the client id of the Torq API key");
        let client_secret = self.secret(section, "client_secret");
        let key_expires = self.optional(section, "key_expires", Given::date);
        let (api_url, token_url) = urls?;
        Ok(Torq {
            api_url,
            token_url,
            client_id: client_id?,
            client_secret: client_secret?,
            key_expires: key_expires?,
        })
    }

    fn jumpcloud(&mut self, section: &Section<'_>, way: Checked<Way>, urls: Checked<Endpoints>) -> Checked<JumpCloud> {
        let credentials = way.and_then(|way| self.credentials(section, way));
        let org_id = self.optional(section, "org_id", |given| {
            given.id("the id of the JumpCloud organisation")
        });
        let application = self.required(section, "application", "an id", |given| {
            let what = "the catalog_app_id of Torq in JumpCloud SaaS Management, such as \"torq\"";
            let id = given.id(what)?;
            if id.contains(['/', '?', '#', '%', '\\']) {
                return Err(given.refused(format!("must be {what}")));
            }
            Ok(id)
        });
        let (console_url, token_url) = urls?;
        Ok(JumpCloud {
            console_url,
            token_url,
            credentials: credentials?,
            org_id: org_id?,
            application: application?,
        })
    }

    /// Service account or API key: exactly one, where one from the environment wins over the other from the file.
    fn way(&mut self, section: &Section<'_>) -> Checked<Way> {
        const SERVICE_ACCOUNT: [&str; 3] = ["client_id", "client_secret", "client_secret_file"];
        const API_KEY: [&str; 2] = ["api_key", "api_key_file"];
        let given = |names: &[&str]| names.iter().any(|name| section.has(name));
        let from_environment = |names: &[&str]| names.iter().any(|name| section.has_from_environment(name));
        match (given(&SERVICE_ACCOUNT), given(&API_KEY)) {
            (true, false) => Ok(Way::ServiceAccount),
            (false, true) => Ok(Way::ApiKey),
            (false, false) => Err(self.missing(
                section,
                "client_id",
                "give client_id and client_secret_file of a service account, or api_key_file of an administrator",
            )),
            (true, true) => match (from_environment(&SERVICE_ACCOUNT), from_environment(&API_KEY)) {
                (true, false) => Ok(Way::ServiceAccount),
                (false, true) => Ok(Way::ApiKey),
                _ => Err(self.tell(Problem::new(
                    keys::join(&section.key, "client_id"),
                    "there are two ways to authenticate; keep either client_id and client_secret_file (service \
                     account) or api_key_file (administrator)",
                ))),
            },
        }
    }

    fn credentials(&mut self, section: &Section<'_>, way: Way) -> Checked<JumpCloudCredentials> {
        match way {
            Way::ServiceAccount => {
                let client_id = self.client_id(section, "the client id of the service account");
                let client_secret = self.secret(section, "client_secret");
                Ok(JumpCloudCredentials::ServiceAccount {
                    client_id: client_id?,
                    client_secret: client_secret?,
                })
            }
            Way::ApiKey => {
                let key = self.secret(section, "api_key")?;
                if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
                    let name = keys::join(&section.key, "api_key");
                    return Err(self.tell(Problem::new(
                        name,
                        "an API key has letters and digits only; this one could not be sent",
                    )));
                }
                Ok(JumpCloudCredentials::ApiKey(key))
            }
        }
    }

    fn client_id(&mut self, section: &Section<'_>, what: &str) -> Checked<String> {
        self.required(section, "client_id", what, |given| given.id(what))
    }

    /// `NAME` or `NAME_file`: exactly one, where one from the environment wins over the other from the file.
    pub(super) fn secret(&mut self, section: &Section<'_>, name: &str) -> Checked<Secret> {
        if !self.reads_secrets {
            return Ok(Secret::unread());
        }
        let file_name = format!("{name}_file");
        match (section.get(name), section.get(&file_name)) {
            (None, None) => Err(self.missing(
                section,
                name,
                &format!("give {file_name}, a file with the secret in it"),
            )),
            (Some(literal), None) => self.literal_secret(&literal),
            (None, Some(file)) => self.connector_secret_file(&file),
            (Some(literal), Some(file)) => match (literal.is_from_environment(), file.is_from_environment()) {
                (true, false) => self.literal_secret(&literal),
                (false, true) => self.connector_secret_file(&file),
                _ => Err(self.tell(literal.wrong(format!("{name} and {file_name} are both given; keep one of them")))),
            },
        }
    }

    /// The region's endpoints, or those that override them. With an API key there is no token to fetch
    /// (`token_needed` is false), and the token endpoint may be anything.
    fn endpoints(
        &mut self,
        section: &Section<'_>,
        regions: &[(&str, Region)],
        base_name: &str,
        token_needed: bool,
    ) -> Checked<Endpoints> {
        let base = self.optional(section, base_name, Given::base_url);
        let token = self.optional(section, "token_url", Given::url);
        let region = self.optional(section, "region", |given| given.one_of(regions));

        let overridden = section.has(base_name) && (section.has("token_url") || !token_needed);
        if !section.has("region") && !overridden {
            let words: Vec<String> = regions.iter().map(|(word, _)| format!("{word:?}")).collect();
            return Err(self.missing(
                section,
                "region",
                &format!("give {}, or {base_name} and token_url", words.join(" or ")),
            ));
        }
        let (base, token, region) = (base?, token?, region?);
        let base = base.or_else(|| Url::parse(region?.base).ok());
        let token = token
            .or_else(|| Url::parse(region?.token).ok())
            .or_else(|| base.clone());
        base.zip(token).ok_or(Told)
    }

    fn users(&mut self, section: &Section<'_>) -> Checked<UserFilter> {
        let include_domains = self.list(section, "include_domains", |item| {
            domain(item).ok_or_else(|| {
                "must be domains, such as \"example.com\"; each is meant exactly, without its subdomains".to_owned()
            })
        });
        let exclude_emails = self.list(section, "exclude_emails", |item| {
            email_pattern(item).ok_or_else(|| {
                "must be e-mail addresses, in which * stands for anything, such as \"*@contractor.example\"".to_owned()
            })
        });
        let statuses = self.list(section, "statuses", |item| {
            let plain = !item.is_empty() && !item.contains(char::is_whitespace);
            plain.then(|| item.to_owned()).ok_or_else(|| {
                "must be statuses as Torq names them, such as \"VERIFIED\" or \"INVITATION_SENT\"".to_owned()
            })
        });
        Ok(UserFilter {
            include_domains: include_domains?,
            exclude_emails: exclude_emails?,
            statuses: statuses?,
        })
    }
}

/// Whether both are plain HTTP on this machine: the sandbox, a demonstration, a test.
fn all_rehearsal((base, token): &Endpoints) -> bool {
    [base, token]
        .iter()
        .all(|url| url.scheme() == "http" && is_loopback(url))
}

/// A mail domain, folded; a leading `@` is forgiven.
fn domain(item: &str) -> Option<String> {
    let item = item.trim();
    host_name(item.strip_prefix('@').unwrap_or(item)).filter(|name| name.contains('.'))
}

/// An address with stars, folded like the addresses that it is compared with.
fn email_pattern(item: &str) -> Option<String> {
    let pattern = EmailKey::fold(item);
    let text = pattern.as_str();
    let plain = text.contains(['@', '*']) && !text.contains(char::is_whitespace);
    plain.then(|| text.to_owned())
}
