//! `docs/notify.schema.json` held against a message: as much of JSON Schema as that uses, and nothing of it is passed by.

use serde_json::Value;

/// The schema that is published.
pub fn published() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/notify.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A message is as the schema says, and has no field that it does not name.
#[track_caller]
pub fn assert_fits(message: &Value) {
    let mut wrong = Vec::new();
    check(&published(), message, "", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:?}\n{message:#}");
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (word, rule) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => rule == kind(value) || rule.as_array().is_some_and(|kinds| kinds.contains(&kind(value).into())),
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_i64() >= rule.as_i64(),
            "format" => value.as_str().is_none_or(|text| match rule.as_str().unwrap() {
                "date-time" => text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(),
                "date" => text.parse::<jiff::civil::Date>().is_ok(),
                other => panic!("format {other}"),
            }),
            // The only one there is: that of an id.
            "pattern" => uuid::Uuid::parse_str(value.as_str().unwrap()).is_ok(),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.is_null() || value.get(name.as_str().unwrap()).is_some()),
            "items" => {
                for item in value.as_array().unwrap() {
                    check(rule, item, &format!("{at}[]"), wrong);
                }
                true
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(rule) => check(rule, field, &format!("{at}.{name}"), wrong),
                        None => wrong.push(format!("{at}.{name} is not in the schema")),
                    }
                }
                true
            }
            other => panic!("the schema says {other}, which is not looked at here"),
        };
        if !fits {
            wrong.push(format!("{at}: {word} {rule}"));
        }
    }
}

#[test]
fn the_message_that_the_page_shows_fits_and_others_do_not() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/notify.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let message: Value = serde_json::from_str(block).unwrap();
    assert_fits(&message);
    for (field, bad) in [
        ("event", Value::from("fire")),
        ("at", "yesterday".into()),
        ("id", "1".into()),
        ("version", 2.into()),
        ("more", 1.into()),
        ("status", 1.into()),
    ] {
        let mut other = message.clone();
        other[field] = bad;
        let mut wrong = Vec::new();
        check(&published(), &other, "", &mut wrong);
        assert!(!wrong.is_empty(), "{field}");
    }
    // What can be chosen is what is listed.
    let listed: Vec<_> = published()["properties"]["event"]["enum"].as_array().unwrap().clone();
    let known = torq_connector::config::Occasion::ALL.map(|one| Value::from(one.as_str()));
    assert_eq!(listed[..listed.len() - 1], known);
    for event in known {
        assert!(page.contains(&format!("| `{}` |", event.as_str().unwrap())), "{event}");
    }
}
