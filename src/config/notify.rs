//! `[connectors.NAME.notify]`: where a person is told that something concerns them. Its types, and the walker's way through it.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use super::check::{Checked, Section, Walker};
use super::value::{Given, is_loopback, shown_text};
use super::{Notify, Problem, Secret, Webhook, keys};

/// What a person is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// Credentials or permission are refused; polling has stopped.
    ReconnectRequired,
    /// The organisation has no SaaS Management.
    NotLicensed,
    /// Removals wait for approval.
    Held,
    /// Users are parked.
    Parked,
    /// JumpCloud offers no account writes.
    ReportOnly,
    /// What was told before is over.
    BackToNormal,
    /// The Torq API key ends soon.
    KeyExpiresSoon,
    /// No success for three intervals.
    Silent,
    /// The first collection is finished.
    FirstCollection,
    /// Somebody tries it out. Not to be chosen.
    Test,
}

impl Occasion {
    /// Every one that can be chosen.
    pub const ALL: [Occasion; 9] = [
        Self::ReconnectRequired,
        Self::NotLicensed,
        Self::Held,
        Self::Parked,
        Self::ReportOnly,
        Self::BackToNormal,
        Self::KeyExpiresSoon,
        Self::Silent,
        Self::FirstCollection,
    ];

    /// The name in the configuration, in messages and in the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReconnectRequired => "reconnect_required",
            Self::NotLicensed => "not_licensed",
            Self::Held => "held",
            Self::Parked => "parked",
            Self::ReportOnly => "report_only",
            Self::BackToNormal => "back_to_normal",
            Self::KeyExpiresSoon => "key_expires_soon",
            Self::Silent => "silent",
            Self::FirstCollection => "first_collection",
            Self::Test => "test",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|occasion| occasion.as_str() == text)
    }
}

/// The shape of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookFormat {
    /// A JSON object with everything in it.
    Json,
    /// `{"text": …}`, as Slack and whatever is compatible with it takes it.
    Slack,
}

/// The address of a webhook. Whoever knows it may often write there, so only its host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Url);

impl HookUrl {
    /// The whole address, for the request.
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// Its host, for people.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({})", self.host())
    }
}

impl Walker<'_> {
    pub(super) fn notify(&mut self, section: &Section<'_>) -> Checked<Option<Notify>> {
        let format = self.optional(section, "format", |given| {
            given.one_of(&[("json", HookFormat::Json), ("slack", HookFormat::Slack)])
        });
        let url = self.hook_url(section, matches!(format, Ok(Some(HookFormat::Slack))));
        let secret = self.hook_secret(section);
        let command = self.hook_command(section);
        let occasions = self.occasions(section);
        let (has_url, has_command) = (section.has("url"), section.has("command"));
        for name in ["format", "secret", "secret_file"] {
            if section.has(name) && !has_url {
                self.tell(Problem::new(
                    keys::join(&section.key, name),
                    "belongs to a webhook: give url, too",
                ));
            }
        }
        if section.has("events") && !has_url && !has_command {
            self.tell(Problem::new(
                keys::join(&section.key, "events"),
                "nobody is told: give url or command, too",
            ));
        }
        let (url, format, secret, command, occasions) = (url?, format?, secret?, command?, occasions?);
        if url.is_none() && command.is_none() {
            return Ok(None);
        }
        let webhook = url.map(|url| Webhook {
            url,
            format: format.unwrap_or(HookFormat::Json),
            secret,
        });
        Ok(Some(Notify {
            webhook,
            command,
            occasions,
        }))
    }

    fn hook_url(&mut self, section: &Section<'_>, is_secret: bool) -> Checked<Option<HookUrl>> {
        let Some(given) = section.get("url") else {
            return Ok(None);
        };
        let url = self.take(hook_url(&given))?;
        if is_secret && !given.is_from_environment() {
            // With Slack, whoever knows the address may write there.
            self.refuse_in_open_file(&given)?;
        }
        Ok(Some(url))
    }

    /// The secret that signs: none, or one of `secret` and `secret_file`.
    fn hook_secret(&mut self, section: &Section<'_>) -> Checked<Option<Secret>> {
        if !section.has("secret") && !section.has("secret_file") {
            return Ok(None);
        }
        self.secret(section, "secret").map(Some)
    }

    fn hook_command(&mut self, section: &Section<'_>) -> Checked<Option<Vec<String>>> {
        let Some(given) = section.get("command") else {
            return Ok(None);
        };
        let allowed = "must be a list: the absolute path of a program, and its arguments; no shell is in between";
        let items = self.take(given.items())?;
        let fits = items.first().is_some_and(|program| program.starts_with('/'));
        if !fits || items.iter().any(|item| item.contains('\0')) {
            let found = items
                .first()
                .map_or_else(|| "an empty list".to_owned(), |first| shown_text(first));
            return Err(self.tell(given.wrong(allowed).found(found)));
        }
        Ok(Some(items.into_iter().map(str::to_owned).collect()))
    }

    fn occasions(&mut self, section: &Section<'_>) -> Checked<Vec<Occasion>> {
        if !section.has("events") {
            return Ok(Occasion::ALL.to_vec());
        }
        let words: Vec<_> = Occasion::ALL.into_iter().map(Occasion::as_str).collect();
        let listed = self.list(section, "events", |item| match Occasion::parse(item.trim()) {
            Some(occasion) => Ok(occasion.as_str().to_owned()),
            None => Err(format!("must be some of {}", words.join(", "))),
        })?;
        if listed.is_empty() {
            return Err(self.tell(Problem::new(
                keys::join(&section.key, "events"),
                "an empty list tells nobody anything: leave events out for all of them, or the section out for none",
            )));
        }
        Ok(listed.iter().filter_map(|word| Occasion::parse(word)).collect())
    }
}

/// HTTPS, or HTTP to loopback. It may have a query, and is never shown.
fn hook_url(given: &Given<'_>) -> Result<HookUrl, Problem> {
    let allowed = "must be a URL that begins with https:// (http:// only for localhost, 127.0.0.0/8 and [::1])";
    let text = given.text("a URL")?.trim();
    let wrong = || given.wrong(allowed);
    let url = Url::parse(text).map_err(|_| wrong())?;
    let fits = match url.scheme() {
        "https" => url.host().is_some(),
        "http" => is_loopback(&url),
        _ => false,
    };
    if !fits || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(given.wrong("must not contain a user name, a password or a fragment (#…)"));
    }
    Ok(HookUrl(url))
}
