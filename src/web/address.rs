//! Where the pages are: paths whose parts come from elsewhere, and query strings, encoded so that they lead where they should.

use url::form_urlencoded;

/// Encodes a part of a path. Everything but what never means anything in a URL is encoded, the slash included.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

pub(super) fn connector(name: &str) -> String {
    format!("/connectors/{}", segment(name))
}

pub(super) fn users(name: &str) -> String {
    format!("{}/users", connector(name))
}

pub(super) fn events(name: &str) -> String {
    format!("{}/events", connector(name))
}

/// The page of a user; `None` for ids that no path can hold: browsers drop dots, encoded or not, and there is no empty part.
pub(super) fn user(name: &str, id: &str) -> Option<String> {
    let reachable = !matches!(id, "" | "." | "..");
    reachable.then(|| format!("{}/{}", users(name), segment(id)))
}

/// A query string in the making: what is `None` is left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(&'static str, String)>,
}

impl Query {
    /// With this value; without any when it is `None`. What was there under the name before is replaced.
    pub(super) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.pairs.retain(|(known, _)| *known != name);
        if let Some(value) = value {
            self.pairs.push((name, value.to_string()));
        }
        self
    }

    /// The path with this query.
    pub(super) fn at(&self, path: &str) -> String {
        if self.pairs.is_empty() {
            return path.to_owned();
        }
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.pairs)
            .finish();
        format!("{path}?{query}")
    }

    /// What a form must send besides its own fields, to keep it.
    pub(super) fn hidden(&self, names: &[&str]) -> impl Iterator<Item = (&'static str, &str)> {
        self.pairs
            .iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, value)| (*name, value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_stay_parts() {
        assert_eq!(
            user("main", "a/b?c#d%2F é\"<").as_deref(),
            Some("/connectors/main/users/a%2Fb%3Fc%23d%252F%20%C3%A9%22%3C")
        );
        assert_eq!(users("a.b_c-D"), "/connectors/a.b_c-D/users");
        for unreachable in ["", ".", ".."] {
            assert_eq!(user("main", unreachable), None, "{unreachable}");
        }
        assert_eq!(user("main", "...").as_deref(), Some("/connectors/main/users/..."));
    }

    #[test]
    fn queries_are_replaced_and_encoded() {
        let query = Query::default().with("search", Some("a&b=c d")).with("page", Some(3));
        assert_eq!(query.at("/x"), "/x?search=a%26b%3Dc+d&page=3");
        assert_eq!(query.with("page", None::<u32>).at("/x"), "/x?search=a%26b%3Dc+d");
        assert_eq!(Query::default().at("/x"), "/x");
    }
}
