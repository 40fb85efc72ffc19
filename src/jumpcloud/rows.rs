//! The rows of JumpCloud's lists: applications, accounts, directory users, each made of the few fields that are read of it; and
//! what is known of one that cannot be read.

use serde::de::{DeserializeSeed, Deserializer, Error};
use xxhash_rust::xxh3::xxh3_64;

use crate::http::foreign::{Field, Record};
use crate::model::{AccountId, ApplicationId, DirectoryUserId, EmailKey, is_id};

/// A row of one of JumpCloud's lists.
pub trait Row: Sized {
    /// What is read of it.
    const FIELDS: &'static [&'static str];
    /// How many of these, from the first, tell one row from another.
    const IDENTITY: usize;

    /// Makes it of its fields, or says why that cannot be.
    fn read(fields: &mut [Field]) -> Result<Self, Unread>;
}

/// What is known of a row that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// What is wrong with it, for a person.
    pub reason: &'static str,
    /// Its id, where that can be read.
    pub id: Option<String>,
    /// What could be read of it that tells whose it is.
    pub texts: Vec<String>,
}

/// Reads one row that stands alone.
pub(super) fn row<'de, T: Row, D: Deserializer<'de>>(deserializer: D) -> Result<Result<T, Unread>, D::Error> {
    let mut fields = vec![Field::Absent; T::FIELDS.len()];
    let record = Record {
        names: T::FIELDS,
        fields: &mut fields,
    };
    match record.deserialize(deserializer)? {
        true => Ok(T::read(&mut fields)),
        false => Err(D::Error::custom("not an object")),
    }
}

/// Torq's entry in SaaS Management.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// 24 hex digits.
    pub id: ApplicationId,
    /// Which application of the catalog it is.
    pub catalog_app_id: Option<String>,
}

impl Row for Application {
    const FIELDS: &'static [&'static str] = &["id", "catalog_app_id"];
    const IDENTITY: usize = 2;

    fn read(fields: &mut [Field]) -> Result<Self, Unread> {
        let [id, catalog_app_id] = taken(fields);
        let catalog_app_id = catalog_app_id.into_id();
        match readable_id(id) {
            Some(id) => Ok(Self {
                id: ApplicationId::new(id),
                catalog_app_id,
            }),
            None => Err(Unread {
                reason: "its id cannot be read",
                id: None,
                texts: catalog_app_id.into_iter().collect(),
            }),
        }
    }
}

/// A user's record under an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// May be missing.
    pub email: Option<String>,
    /// May be missing, also together with the e-mail.
    pub username: Option<String>,
    /// The directory user whom it belongs to; missing when nobody matches.
    pub user_id: Option<String>,
}

impl Row for Account {
    const FIELDS: &'static [&'static str] = &["id", "email", "username", "user_id"];
    const IDENTITY: usize = 3;

    /// An account whose e-mail is there and is no text is somebody's, and nobody knows whose: it does not count as one without an
    /// e-mail. Other odd fields hide no account.
    fn read(fields: &mut [Field]) -> Result<Self, Unread> {
        let [id, email, username, user_id] = taken(fields);
        let strange = email.is_strange() || (email == Field::Absent && username.is_strange());
        let (id, email, username) = (readable_id(id), email.into_text(), username.into_text());
        match id {
            Some(id) if !strange => Ok(Self {
                id: AccountId::new(id),
                email,
                username,
                user_id: user_id.into_id(),
            }),
            id => Err(Unread {
                reason: if strange {
                    "its e-mail is not a text"
                } else {
                    "its id cannot be read"
                },
                id,
                texts: email.into_iter().chain(username).collect(),
            }),
        }
    }
}

impl Account {
    /// By what the account is recognised: its e-mail, or the user name where there is no e-mail; `None` with neither.
    pub fn key(&self) -> Option<EmailKey> {
        [&self.email, &self.username]
            .into_iter()
            .flatten()
            .map(|text| EmailKey::fold(text))
            .find(|key| !key.is_empty())
    }

    /// Whether this is the account of an e-mail: it, or the user name, is the same.
    pub fn is_of(&self, key: &EmailKey) -> bool {
        let texts = [&self.email, &self.username].into_iter().flatten();
        texts.map(|text| EmailKey::fold(text)).any(|own| own == *key)
    }

    /// Numbers that stand for this account as that of each of its names; see [`account_print`].
    pub fn prints(&self) -> impl Iterator<Item = u64> {
        let texts = [&self.email, &self.username].into_iter().flatten();
        texts.map(|text| account_print(self.id.as_str(), &EmailKey::fold(text)))
    }

    /// The directory user whom it is associated with.
    pub fn directory_user(&self) -> Option<DirectoryUserId> {
        let id = self.user_id.as_deref().filter(|id| is_id(id))?;
        Some(DirectoryUserId::new(id))
    }
}

/// A number (xxh3) that stands for an account as that of an e-mail: another one when the account is given to somebody else.
pub fn account_print(id: &str, key: &EmailKey) -> u64 {
    xxh3_64(format!("{id}\0{key}").as_bytes())
}

/// A person in the JumpCloud directory (v1 says `_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUser {
    /// The id.
    pub id: DirectoryUserId,
    /// The e-mail.
    pub email: Option<String>,
}

impl Row for DirectoryUser {
    const FIELDS: &'static [&'static str] = &["_id", "id", "email"];
    const IDENTITY: usize = 2;

    fn read(fields: &mut [Field]) -> Result<Self, Unread> {
        let [v1, v2, email] = taken(fields);
        match readable_id(v1).or_else(|| readable_id(v2)) {
            Some(id) => Ok(Self {
                id: DirectoryUserId::new(id),
                email: email.into_text(),
            }),
            None => Err(Unread {
                reason: "its id cannot be read",
                ..Unread::default()
            }),
        }
    }
}

/// The fields of a row, as many as it has.
fn taken<const N: usize>(fields: &mut [Field]) -> [Field; N] {
    let mut fields = fields.iter_mut().map(std::mem::take);
    std::array::from_fn(|_| fields.next().unwrap_or_default())
}

fn readable_id(id: Field) -> Option<String> {
    id.into_id().filter(|id| is_id(id))
}
