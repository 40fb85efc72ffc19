//! The keys there are, and their defaults: the one list that unknown keys, the environment and the example
//! file are compared with.

/// Every key outside the connectors, with its default where it has one that can be written down.
pub(super) const GENERAL: &[(&str, Option<&str>)] = &[
    ("state_dir", None), // depends on STATE_DIRECTORY
    ("log.level", Some("info")),
    ("log.format", Some("text")),
    ("http.listen", Some("127.0.0.1:8686")),
    ("http.password_file", None),
    ("http.hosts", None),
    ("network.ca_file", None),
    ("network.connect_timeout", Some("10s")),
    ("network.timeout", Some("60s")),
];

/// Every key of a connector, relative to `connectors.NAME`.
pub(super) const CONNECTOR: &[(&str, Option<&str>)] = &[
    ("poll_interval", Some("15m")),
    ("removals", Some("report")),
    ("max_removals", Some("10%")),
    ("retention", Some("400d")),
    ("torq.region", None),
    ("torq.client_id", None),
    ("torq.client_secret", None),
    ("torq.client_secret_file", None),
    ("torq.key_expires", None),
    ("torq.api_url", None),
    ("torq.token_url", None),
    ("jumpcloud.region", None),
    ("jumpcloud.client_id", None),
    ("jumpcloud.client_secret", None),
    ("jumpcloud.client_secret_file", None),
    ("jumpcloud.api_key", None),
    ("jumpcloud.api_key_file", None),
    ("jumpcloud.org_id", None),
    ("jumpcloud.application", Some("torq")),
    ("jumpcloud.console_url", None),
    ("jumpcloud.token_url", None),
    ("users.include_domains", None),
    ("users.exclude_emails", None),
    ("users.statuses", None),
    ("notify.url", None),
    ("notify.format", None),
    ("notify.secret", None),
    ("notify.secret_file", None),
    ("notify.command", None),
    ("notify.events", None),
];

/// What a name stands for at some place of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has a value.
    Value,
    /// It has further keys.
    Section,
    /// It is not known.
    Unknown,
}

/// What `path` (dotted, relative to where `known` begins) stands for.
pub(super) fn kind(known: &[(&str, Option<&str>)], path: &str) -> Kind {
    if known.iter().any(|(key, _)| *key == path) {
        Kind::Value
    } else if known.iter().any(|(key, _)| below(key, path).is_some()) {
        Kind::Section
    } else {
        Kind::Unknown
    }
}

/// The names allowed in `section` (empty for the outermost), in the order in which they are documented.
pub(super) fn names<'k>(known: &'k [(&str, Option<&str>)], section: &str) -> Vec<&'k str> {
    let mut names = Vec::new();
    for (key, _) in known {
        let rest = if section.is_empty() {
            Some(*key)
        } else {
            below(key, section)
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// What to say about an unknown name: what it may have been meant to be, and what is allowed there. `place` is how
/// the sections of `known` are written, e.g. `connectors.main`.
pub(super) fn advice(known: &[(&str, Option<&str>)], section: &str, name: &str, place: &str) -> String {
    let allowed = allowed(known, section, place);
    let meant = match meant(known, section, name, place) {
        Some(near) => format!("did you mean \"{near}\"? "),
        None => elsewhere(name, place)
            .map(|home| format!("it belongs in [{home}]; "))
            .unwrap_or_default(),
    };
    format!("unknown key; {meant}known here: {}", allowed.join(", "))
}

fn allowed<'k>(known: &'k [(&str, Option<&str>)], section: &str, place: &str) -> Vec<&'k str> {
    let mut allowed = names(known, section);
    if section.is_empty() && place.is_empty() {
        allowed.push("connectors");
    }
    allowed
}

/// What an unknown name was probably meant to be.
pub(super) fn meant<'k>(known: &'k [(&str, Option<&str>)], section: &str, name: &str, place: &str) -> Option<&'k str> {
    nearest(name, allowed(known, section, place).into_iter())
}

/// The one of `candidates` that `name` is probably a slip of.
pub(super) fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let name = name.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The sections where `name` is known, if it is known somewhere else.
fn elsewhere(name: &str, place: &str) -> Option<String> {
    let connector = if place.is_empty() { "connectors.NAME" } else { place };
    let mut homes = Vec::new();
    for (list, root) in [(GENERAL, ""), (CONNECTOR, connector)] {
        for (key, _) in list {
            let (section, last) = key.rsplit_once('.').unwrap_or(("", key));
            if last == name {
                let dot = if root.is_empty() || section.is_empty() { "" } else { "." };
                homes.push(format!("{root}{dot}{section}"));
            }
        }
    }
    homes.retain(|home| !home.is_empty());
    (!homes.is_empty()).then(|| homes.join("] or ["))
}

/// What is left of `key` below `section`.
fn below<'k>(key: &'k str, section: &str) -> Option<&'k str> {
    key.strip_prefix(section)?.strip_prefix('.')
}

/// A name as TOML writes it in a key: quoted where it must be.
pub(super) fn quoted(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { name.to_owned() } else { format!("{name:?}") }
}

/// `section.name`, or just the one that is not empty.
pub(super) fn join(section: &str, name: &str) -> String {
    match (section, name) {
        ("", only) | (only, "") => only.to_owned(),
        _ => format!("{section}.{name}"),
    }
}
