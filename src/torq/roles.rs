//! The roles as Torq sends them: names for the ids that users carry. A convenience, so whatever can be read is taken.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::http::foreign::{Field, Found, Records, Skipped};
use crate::http::{Answer, Failure, decode};
use crate::model::{Peer, is_id};

/// What is being done, for messages.
pub(super) const OPERATION: &str = "list roles";

/// Reads the names of the roles by id. A role without a readable id or name is left out: its users are shown with its id.
///
/// # Errors
/// [`FailureKind::Unintelligible`](crate::http::FailureKind::Unintelligible) when the body is not a list of roles.
pub fn read_roles(answer: &Answer) -> Result<BTreeMap<String, String>, Failure> {
    decode(Peer::Torq, OPERATION, answer).map(|Roles(names)| names)
}

/// The answer of `GET roles`.
struct Roles(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Body)
    }
}

struct Body;

impl<'de> Visitor<'de> for Body {
    type Value = Roles;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with roles")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Roles, A::Error> {
        let mut names = BTreeMap::new();
        let mut show = |fields: Option<&mut [Field]>| {
            if let Some([id, name]) = fields
                && let Some(id) = std::mem::take(id).into_text().filter(|id| is_id(id))
                && let Some(name) = std::mem::take(name).into_text()
            {
                names.insert(id, name);
            }
        };
        let mut found = Found::Nothing;
        while let Some(name) = object.next_key::<String>()? {
            if name != "roles" {
                object.next_value::<Skipped>()?;
                continue;
            }
            if found != Found::Nothing {
                return Err(A::Error::duplicate_field("roles"));
            }
            found = object.next_value_seed(Records {
                names: &["id", "name"],
                show: &mut show,
            })?;
        }
        match found {
            Found::Other => Err(A::Error::custom("roles is not a list")),
            Found::List(_) | Found::Nothing => Ok(Roles(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<BTreeMap<String, String>, Failure> {
        read_roles(&Answer {
            status: http::StatusCode::OK,
            body: body.to_owned().into(),
            retry_after: None,
        })
    }

    #[test]
    fn one_odd_role_costs_no_other_its_name() {
        let roles = read(
            r#"{"roles":[{"id":"r1","name":"Owner","scope_names":["user.read"]},{"id":5,"name":"x"},{"id":"r2"},{"name":"y"},
                {"id":"r3","name":null},"text",null,{"id":"r4","name":"Auditor"}]}"#,
        )
        .unwrap();
        let roles: Vec<_> = roles.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
        assert_eq!(roles, [("r1", "Owner"), ("r4", "Auditor")]);
        assert_eq!(read("{}").unwrap().len(), 0);
        assert_eq!(read(r#"{"roles":null}"#).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_list_of_roles_is_an_error_that_quotes_nothing() {
        for wrong in [
            r#"{"roles":"tok3n"}"#,
            r#""tok3n""#,
            r#"{"roles":[],"roles":[]}"#,
            "<html>",
            "",
        ] {
            let failure = read(wrong).unwrap_err();
            assert!(!failure.to_string().contains("tok3n"), "{failure}");
        }
    }
}
