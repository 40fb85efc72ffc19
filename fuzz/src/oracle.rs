//! What a JSON body says, read without any code of the connector: the slow and simple way, for comparison.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A body as a tree, as far as its meaning is beyond doubt; `None` where serde_json can make none of it (numbers beyond f64, half
/// a surrogate pair), or where a key is written twice in one object, of which a tree would keep the last.
pub fn tree(body: &[u8]) -> Option<Value> {
    let Repeats(repeats) = serde_json::from_slice(body).ok()?;
    if repeats {
        None
    } else {
        serde_json::from_slice(body).ok()
    }
}

/// Whether this can be the id of something: there, short, printable, and one segment of a path wherever it is put into a URL.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control) && text != "." && text != ".."
}

/// The id under one of these names, the first that is one.
pub fn id<'a>(record: &'a Value, names: &[&str]) -> Option<&'a str> {
    let fields = names.iter().filter_map(|name| record.as_object()?.get(*name)?.as_str());
    fields.into_iter().find(|text| is_id(text))
}

/// The same, where a number is taken for an id, too, as JumpCloud's readers do.
pub fn any_id(record: &Value, names: &[&str]) -> Option<String> {
    let record = record.as_object()?;
    names.iter().filter_map(|name| id_of(record.get(*name)?)).next()
}

/// What is taken for an id in a place where one is expected.
pub fn id_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => number.to_string(),
            (_, Some(number), _) => number.to_string(),
            (_, _, number) => number?.to_string(),
        },
        _ => return None,
    };
    is_id(&text).then_some(text)
}

/// Whether a text is short enough to be believed.
pub fn is_short(text: &str) -> bool {
    text.len() <= torq_connector::http::foreign::MAX_TEXT
}

/// How often `key` is written with something under it, which null is not, in the outermost object.
pub fn occurrences(body: &[u8], key: &str) -> usize {
    struct Keys(Vec<String>);
    struct Collect;
    impl<'de> Deserialize<'de> for Keys {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Collect)
        }
    }
    impl<'de> Visitor<'de> for Collect {
        type Value = Keys;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Option<serde::de::IgnoredAny>>()? {
                if value.is_some() {
                    keys.push(key);
                }
            }
            Ok(Keys(keys))
        }
    }
    let keys = serde_json::from_slice::<Keys>(body);
    keys.map_or(0, |keys| keys.0.iter().filter(|known| *known == key).count())
}

/// Whether some object has a key twice.
struct Repeats(bool);

impl<'de> Deserialize<'de> for Repeats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Repeats;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Repeats, E> {
                Ok(Repeats(false))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Repeats, E> {
                Ok(Repeats(false))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Repeats, E> {
                Ok(Repeats(false))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Repeats, E> {
                Ok(Repeats(false))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Repeats, E> {
                Ok(Repeats(false))
            }
            fn visit_str<E>(self, _: &str) -> Result<Repeats, E> {
                Ok(Repeats(false))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Repeats, A::Error> {
                let mut any = false;
                while let Some(Repeats(within)) = list.next_element()? {
                    any |= within;
                }
                Ok(Repeats(any))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Repeats, A::Error> {
                let (mut any, mut keys) = (false, BTreeSet::new());
                while let Some((key, Repeats(within))) = map.next_entry::<String, _>()? {
                    any |= within | !keys.insert(key);
                }
                Ok(Repeats(any))
            }
        }
        deserializer.deserialize_any(Look)
    }
}
