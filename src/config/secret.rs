//! Secrets: where they are read from, who else may read that file, and what can never be one. No message made
//! here contains anything of a secret.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Connector, JumpCloudCredentials, Notify, Problem, Secret, SecretSource, file};
use crate::model::Peer;

/// No secret of either peer is anywhere near this long; a file that is longer is not a secret's file.
const LARGEST: u64 = 64 * 1024;

/// The same secret from the same place. To notice a changed configuration; what a peer sent is never compared with a secret.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.expose() == other.expose() && self.problem == other.problem
    }
}

/// Where it is from; nothing of what it is.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("value", &self.value)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// A secret from this source, taken as it is.
    pub fn new(value: impl Into<String>, source: SecretSource) -> Self {
        Self {
            value: SecretString::from(value.into()),
            fixed: source == SecretSource::Environment,
            source,
            problem: None,
        }
    }

    /// Stands for the secret in a file that cannot be read now, and perhaps later.
    pub(super) fn unreadable(path: PathBuf, problem: Problem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::new("", SecretSource::File(path))
        }
    }

    /// Stands for a secret that was not asked for, in a configuration that nothing will be sent with.
    pub(super) fn unread() -> Self {
        Self::new("unread", SecretSource::Literal)
    }

    /// The secret itself, for the request it goes into and for nothing else.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// Reads a secret again that came from a file: `Some` when it is another one now. A secret from elsewhere
    /// changes only with a new configuration, so there it is always `None`.
    ///
    /// # Errors
    /// The file is gone, or what is in it is refused; the secret in hand may still be good.
    pub fn reload(&self) -> Result<Option<Secret>, Problem> {
        let SecretSource::File(path) = &self.source else {
            return Ok(None);
        };
        let fresh = Self {
            fixed: self.fixed,
            ..from_file(path).map_err(|message| Problem::new("", message))?
        };
        Ok((fresh.expose() != self.expose() || self.problem.is_some()).then_some(fresh))
    }

    /// Stays with the secret in hand, from the same file, where that cannot be read any more: it may still be good. And where the
    /// configuration was read before the file changed, and the one in hand after: what is new is not replaced by what is old.
    fn keep(&mut self, before: &Secret) {
        if before.problem.is_some() || self.source != before.source || self == before {
            return;
        }
        let read_later = || matches!(self.reload(), Ok(Some(now)) if now.expose() == before.expose());
        if self.problem.is_some() || read_later() {
            *self = before.clone();
        }
    }
}

impl Connector {
    /// The secrets that its peers are asked with, each with what it is; not that of a webhook.
    pub fn secrets(&self) -> [(Peer, &'static str, &Secret); 2] {
        let (what, secret) = match &self.jumpcloud.credentials {
            JumpCloudCredentials::ServiceAccount { client_secret, .. } => ("client secret", client_secret),
            JumpCloudCredentials::ApiKey(key) => ("API key", key),
        };
        [
            (Peer::Torq, "client secret", &self.torq.client_secret),
            (Peer::JumpCloud, what, secret),
        ]
    }

    fn secrets_mut(&mut self) -> [&mut Secret; 2] {
        let secret = match &mut self.jumpcloud.credentials {
            JumpCloudCredentials::ServiceAccount { client_secret, .. } => client_secret,
            JumpCloudCredentials::ApiKey(key) => key,
        };
        [&mut self.torq.client_secret, secret]
    }

    /// Goes on with the secrets in hand where their files cannot be read any more, or hold these and no longer the ones that were
    /// read with this configuration.
    pub fn keep_secrets_of(&mut self, before: &Connector) {
        let pairs = self.secrets_mut().into_iter().zip(before.secrets());
        for (secret, (_, _, known)) in pairs {
            secret.keep(known);
        }
        let of_hook = |connector: &Connector| connector.notify.as_ref()?.webhook.as_ref()?.secret.clone();
        if let Some(known) = of_hook(before)
            && let Some(Notify {
                webhook: Some(webhook), ..
            }) = &mut self.notify
            && let Some(secret) = &mut webhook.secret
        {
            secret.keep(&known);
        }
    }

    /// Reads the files of its secrets again.
    pub fn read_secrets_again(&mut self) -> Reread {
        let what = self.secrets().map(|(peer, what, _)| format!("the {what} for {peer}"));
        let mut reread = Reread::default();
        for (secret, what) in self.secrets_mut().into_iter().zip(what) {
            match secret.reload() {
                Ok(Some(fresh)) => {
                    *secret = fresh;
                    reread.changed = true;
                }
                Ok(None) => {}
                Err(problem) => reread.problems.push(format!("{what}: {problem}")),
            }
        }
        reread
    }
}

/// What came of reading a connector's secrets again.
#[derive(Debug, Default)]
pub struct Reread {
    /// Whether one of them is another one now.
    pub changed: bool,
    /// What is wrong with their files; the connector goes on with what it has.
    pub problems: Vec<String>,
}

/// The file that `name` means: a bare name is looked up in the credentials folder (systemd's
/// `$CREDENTIALS_DIRECTORY`) first, everything relative is then relative to `dir`.
///
/// Where there is none, that is said, and which file it would have been.
pub(super) fn locate(name: &str, dir: &Path, credentials: Option<&Path>) -> Result<PathBuf, (String, PathBuf)> {
    let mut places = Vec::new();
    if let Some(credentials) = credentials
        && !name.contains('/')
    {
        places.push(credentials.join(name));
    }
    places.push(dir.join(name));
    for place in &places {
        match std::fs::metadata(place) {
            // A folder on the way that may not be entered is told when the file is read.
            Ok(_) => return Ok(place.clone()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(place.clone()),
            Err(_) => {}
        }
    }
    let tried: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    let message = format!("there is no such file: {}", tried.join(", nor "));
    Err((message, dir.join(name)))
}

/// Reads a secret from a file that nobody but its owner and group may touch.
pub(super) fn from_file(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{shown} cannot be read: permission denied; `chown` it to the user who runs the connector")
        }
        _ => format!("{shown} cannot be read: {error}"),
    };
    let file = file::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "other users of this machine have access to this file (mode {mode:04o}); run `chmod 600 {shown}`, and `chown` it to the \
             user who runs the connector"
        ));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("{shown} is larger than 64 KiB; that is not a secret"));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8 text; write the secret alone into it"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.trim_end_matches(['\n', '\r']);
    vet(text).map_err(|message| format!("{shown}: {message}"))?;
    Ok(Secret::new(text, SecretSource::File(path.to_path_buf())))
}

/// Refuses what cannot be a secret.
pub(super) fn vet(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    if is_placeholder(text) {
        return Err("replace the placeholder with the secret".to_owned());
    }
    if text.len() as u64 > LARGEST {
        return Err("the secret is larger than 64 KiB".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(
            "the secret has control characters or several lines; there must be one line with the secret alone"
                .to_owned(),
        );
    }
    Ok(())
}

/// Whether somebody copied an example and left this to be filled in.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    text == "…" || text == "..." || text.starts_with("YOUR") || (text.starts_with('<') && text.ends_with('>'))
}
