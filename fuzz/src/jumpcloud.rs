//! What JumpCloud sends: lists in both shapes, and single records.

use std::fmt::Debug;

use http::StatusCode;
use serde_json::{Value, json};
use torq_connector::fuzzing::{
    One, Page, read_account, read_accounts, read_application, read_applications, read_directory_user,
    read_directory_users,
};
use torq_connector::http::Answer;
use torq_connector::jumpcloud::{Account, Application, DirectoryUser};
use url::Url;

use super::foreign::{answer, assert_readable, assert_unintelligible, measured};
use super::{Gauge, oracle};

/// A record of JumpCloud, and how JumpCloud writes it down.
trait Record: Clone + PartialEq + Debug {
    /// Where its id may stand, the better name first.
    const IDS: &'static [&'static str];

    fn id(&self) -> &str;
    fn written(&self) -> Value;
    fn read_list(answer: &Answer) -> Page<Self>;
    fn read_one(answer: &Answer) -> One<Self>;

    /// Whether a row with an id is a record, for all that stands beside the id.
    fn is_clear(_: &Value) -> bool {
        true
    }

    /// What is kept of a row that is none.
    fn remains(row: &Value) -> Vec<String>;
}

/// The texts of these names that can be believed.
fn texts(row: &Value, names: &[&str]) -> Vec<String> {
    let fields = names.iter().filter_map(|name| row.as_object()?.get(*name)?.as_str());
    let there = fields.filter(|text| !text.is_empty() && oracle::is_short(text));
    there.map(str::to_owned).collect()
}

impl Record for Application {
    const IDS: &'static [&'static str] = &["id"];

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn written(&self) -> Value {
        json!({ "id": self.id, "catalog_app_id": self.catalog_app_id })
    }

    fn read_list(answer: &Answer) -> Page<Self> {
        read_applications(answer)
    }

    fn read_one(answer: &Answer) -> One<Self> {
        read_application(answer)
    }

    fn remains(row: &Value) -> Vec<String> {
        match row.get("catalog_app_id") {
            Some(Value::Number(_)) => oracle::id_of(&row["catalog_app_id"]).into_iter().collect(),
            _ => texts(row, &["catalog_app_id"]),
        }
    }
}

impl Record for Account {
    const IDS: &'static [&'static str] = &["id"];

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn written(&self) -> Value {
        json!({ "id": self.id, "email": self.email, "username": self.username, "user_id": self.user_id })
    }

    fn read_list(answer: &Answer) -> Page<Self> {
        read_accounts(answer)
    }

    fn read_one(answer: &Answer) -> One<Self> {
        read_account(answer)
    }

    /// An e-mail that is no text makes it somebody's, and nobody knows whose.
    fn is_clear(row: &Value) -> bool {
        let field = |name: &str| row.get(name).unwrap_or(&Value::Null);
        let text = |name: &str| field(name).is_null() || field(name).as_str().is_some_and(oracle::is_short);
        text("email") && (!field("email").is_null() || text("username"))
    }

    fn remains(row: &Value) -> Vec<String> {
        texts(row, &["email", "username"])
    }
}

impl Record for DirectoryUser {
    const IDS: &'static [&'static str] = &["_id", "id"];

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn written(&self) -> Value {
        json!({ "_id": self.id, "email": self.email })
    }

    fn read_list(answer: &Answer) -> Page<Self> {
        read_directory_users(answer)
    }

    fn read_one(answer: &Answer) -> One<Self> {
        read_directory_user(answer)
    }

    fn remains(_: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// An id goes into the paths of requests, deletions among them: it must lead to what it names and nowhere else.
fn assert_leads_there(id: &str) {
    assert!(oracle::is_id(id), "{id:?}");
    let mut url: Url = "https://console.example/api/v2/saas-management/applications"
        .parse()
        .unwrap();
    url.path_segments_mut().unwrap().extend(["app", "accounts", id]);
    let segments: Vec<&str> = url.path_segments().unwrap().collect();
    assert_eq!(segments.len(), 7, "{id:?} leads to {url}");
    assert!(url.query().is_none() && url.fragment().is_none());
    assert_eq!(url.host_str(), Some("console.example"));
}

fn assert_account(account: &Account) {
    if let Some(key) = account.key() {
        let text = key.as_str();
        assert!(
            !text.is_empty() && text == text.trim() && text == text.to_lowercase(),
            "{key:?}"
        );
    }
    if let Some(user) = account.directory_user() {
        assert_leads_there(user.as_str());
    }
}

/// The id of a row that is a record.
fn good<T: Record>(row: &Value) -> Option<String> {
    oracle::any_id(row, T::IDS).filter(|_| T::is_clear(row))
}

/// The lists of applications, accounts and directory users: rows or an error, never a page that is neither, for an empty page is
/// what ends a list, and whoever is not in it would be made a second time.
pub fn jumpcloud_lists(data: &[u8], gauge: Gauge) {
    list::<Application>(data, gauge);
    for account in list::<Account>(data, gauge) {
        assert_account(&account);
    }
    list::<DirectoryUser>(data, gauge);
}

fn list<T: Record>(data: &[u8], gauge: Gauge) -> Vec<T> {
    let body = answer(StatusCode::OK, data);
    let result = measured(gauge, data.len(), || T::read_list(&body));
    let tree = oracle::tree(data);
    let rows = tree
        .as_ref()
        .map(|tree| tree.as_array().or_else(|| tree.get("results")?.as_array()));
    if let Some(rows) = rows {
        assert_eq!(result.is_ok(), rows.is_some(), "{result:?} of {tree:?}");
    }
    let (read, unread) = match result {
        Ok(page) => page,
        Err(failure) => {
            assert_unintelligible(&failure);
            return Vec::new();
        }
    };
    assert!(
        oracle::occurrences(data, "results") <= 1,
        "results twice, and one of them was believed"
    );
    for told in &unread {
        assert!(!told.reason.is_empty());
        assert_readable(told.reason, 100);
    }
    if let Some(rows) = rows.flatten() {
        assert_eq!(read.len() + unread.len(), rows.len(), "every row is read or told");
        let ids: Vec<String> = rows.iter().filter_map(good::<T>).collect();
        let found: Vec<&str> = read.iter().map(Record::id).collect();
        assert_eq!(found, ids, "every good row, in the order of the answer");
        for (told, row) in unread.iter().zip(rows.iter().filter(|row| good::<T>(row).is_none())) {
            assert_eq!(told.texts, T::remains(row), "whose it is: {row}");
            assert_eq!(told.id, oracle::any_id(row, T::IDS), "which it is: {row}");
        }
    }
    for row in &read {
        assert_leads_there(row.id());
    }
    let bare = Value::from(read.iter().map(T::written).collect::<Vec<Value>>());
    for shape in [json!({ "totalCount": 0, "results": bare }), bare] {
        let again = T::read_list(&answer(StatusCode::OK, shape.to_string().as_bytes())).unwrap();
        assert_eq!(again, (read.clone(), Vec::new()), "both shapes say the same");
    }
    read
}

/// A single application, account or directory user, as it answers a request for it or its creation.
pub fn jumpcloud_records(data: &[u8], gauge: Gauge) {
    record::<Application>(data, gauge);
    if let Some(account) = record::<Account>(data, gauge) {
        assert_account(&account);
    }
    record::<DirectoryUser>(data, gauge);
}

fn record<T: Record>(data: &[u8], gauge: Gauge) -> Option<T> {
    let body = answer(StatusCode::OK, data);
    let result = measured(gauge, data.len(), || T::read_one(&body));
    if let Some(tree) = oracle::tree(data) {
        assert_eq!(result.is_ok(), tree.is_object(), "{result:?} of {tree}");
        let id = result.as_ref().ok().and_then(|record| record.as_ref().ok());
        assert_eq!(
            id.map(|record| record.id().to_owned()),
            good::<T>(&tree),
            "whatever is clear and has an id is a record, and nothing else is"
        );
    }
    let record = match result {
        Ok(record) => record.ok()?,
        Err(failure) => {
            assert_unintelligible(&failure);
            return None;
        }
    };
    assert_leads_there(record.id());
    let again = answer(StatusCode::OK, record.written().to_string().as_bytes());
    assert_eq!(T::read_one(&again).unwrap().as_ref(), Ok(&record));
    Some(record)
}
