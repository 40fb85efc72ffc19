//! Foreign JSON, read without believing in its types: the fields that are wanted, whatever stands in them, and nothing else.
//!
//! A tree of [`serde_json::Value`]s can take a hundred times the room of its text (an object with one field takes 600 bytes), and
//! one field of an unexpected type must not make its record, or the whole list, unreadable. So lists are read record by
//! record into a few [`Field`]s; what is not asked for is skipped, and costs nothing.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The longest text that is believed, in bytes. Nothing that is read from a peer (addresses, ids, names) is anywhere near.
pub const MAX_TEXT: usize = 1000;

/// The most records in one answer. Asked for are 100; a server that knows no pages sends all it has.
pub const MAX_RECORDS: usize = 100_000;

/// What stands in a field of which a text was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Field<const MOST: usize = MAX_TEXT> {
    /// Nothing, or null.
    #[default]
    Absent,
    /// A text of at most so many bytes.
    Text(String),
    /// A number, as it is written.
    Number(String),
    /// True or false.
    Bool(bool),
    /// A list, an object, or a text that is too long.
    Odd,
}

impl<const MOST: usize> Field<MOST> {
    /// The text, where there is one; empty counts as none.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A text, or a number as one: some servers write ids so.
    pub fn into_id(self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number),
            other => other.into_text(),
        }
    }

    /// Whether something is there that is not a text.
    pub fn is_strange(&self) -> bool {
        !matches!(self, Self::Absent | Self::Text(_))
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Field<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whatever<const MOST: usize>;

        impl<'de, const MOST: usize> Visitor<'de> for Whatever<MOST> {
            type Value = Field<MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(if text.len() > MOST {
                    Field::Odd
                } else {
                    Field::Text(text.to_owned())
                })
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Field::Bool(value))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Field::Number(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Field::Number(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Field::Number(number.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Field::Absent)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                skip_list(list).map(|()| Field::Odd)
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                skip_object(object).map(|()| Field::Odd)
            }
        }

        deserializer.deserialize_any(Whatever)
    }
}

/// Whatever is not asked for. Unlike serde's own way to skip, it is bound by the parser's limit of depth (128), so that a body of
/// absurd depth is an error and nothing else.
pub struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Skipped;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, _: &str) -> Result<Skipped, E> {
                Ok(Skipped)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Skipped, E> {
                Ok(Skipped)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Skipped, E> {
                Ok(Skipped)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Skipped, E> {
                Ok(Skipped)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Skipped, E> {
                Ok(Skipped)
            }

            fn visit_unit<E>(self) -> Result<Skipped, E> {
                Ok(Skipped)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Skipped, A::Error> {
                skip_list(list).map(|()| Skipped)
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Skipped, A::Error> {
                skip_object(object).map(|()| Skipped)
            }
        }

        deserializer.deserialize_any(Anything)
    }
}

fn skip_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<Skipped>()?.is_some() {}
    Ok(())
}

fn skip_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<(), A::Error> {
    while object.next_entry::<Skipped, Skipped>()?.is_some() {}
    Ok(())
}

/// Reads an object's fields of these names into `fields`, in their order; a name that comes twice counts as it came last. `false`
/// when it is not an object at all.
pub struct Record<'a, const MOST: usize = MAX_TEXT> {
    /// What is wanted.
    pub names: &'a [&'a str],
    /// Where it goes: as many as names.
    pub fields: &'a mut [Field<MOST>],
}

impl<'de, const MOST: usize> DeserializeSeed<'de> for Record<'_, MOST> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        self.fields.fill(Field::Absent);
        deserializer.deserialize_any(self)
    }
}

impl<'de, const MOST: usize> Visitor<'de> for Record<'_, MOST> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<bool, A::Error> {
        while let Some(place) = object.next_key_seed(Place(self.names))? {
            match place.and_then(|place| self.fields.get_mut(place)) {
                Some(field) => *field = object.next_value()?,
                None => {
                    object.next_value::<Skipped>()?;
                }
            }
        }
        Ok(true)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<bool, A::Error> {
        skip_list(list).map(|()| false)
    }
}

/// Reads a key as its place among names, without keeping it.
struct Place<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// What stood where a list of records was expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or null.
    #[default]
    Nothing,
    /// A list of so many.
    List(usize),
    /// Something else.
    Other,
}

/// Reads a list of records, each into the same fields, and shows them one by one: `None` for what is not an object.
///
/// # Errors
/// More than [`MAX_RECORDS`].
pub struct Records<'a> {
    /// What is wanted of each.
    pub names: &'a [&'a str],
    /// Who is shown them.
    pub show: &'a mut dyn FnMut(Option<&mut [Field]>),
}

impl<'de> DeserializeSeed<'de> for Records<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let mut fields = vec![Field::Absent; self.names.len()];
        let mut count = 0;
        loop {
            let record = Record {
                names: self.names,
                fields: &mut fields,
            };
            let Some(is_object) = list.next_element_seed(record)? else {
                return Ok(Found::List(count));
            };
            count += 1;
            if count > MAX_RECORDS {
                return Err(A::Error::custom(format_args!(
                    "more than {MAX_RECORDS} records in one answer"
                )));
            }
            (self.show)(is_object.then_some(&mut fields));
        }
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Found, A::Error> {
        skip_object(object).map(|()| Found::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other)
    }
}

/// Reads a body that is one object, as [`Record`] does.
pub fn read_record<const MOST: usize>(
    body: &[u8],
    names: &[&str],
    fields: &mut [Field<MOST>],
) -> serde_json::Result<bool> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let is_object = Record { names, fields }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(is_object)
}

/// What serde_json says about JSON that is of the wrong kind, without the value that it quotes: the value is foreign, and may be
/// a secret that somebody repeats.
pub fn complaint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let quotes = text.starts_with("invalid type: ") || text.starts_with("invalid value: ");
    match text.rsplit_once(", expected ") {
        Some((found, expected)) if quotes => {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            super::clean(&format!("{kind}, expected {expected}"))
        }
        _ => super::clean(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_names_the_kind_and_never_quotes_the_value() {
        let error = serde_json::from_str::<Vec<u8>>("\"tok3n, expected more\"").unwrap_err();
        let words = complaint(&error);
        assert!(
            words.starts_with("invalid type: string, expected a sequence"),
            "{words}"
        );
    }

    fn text(text: &str) -> Field {
        Field::Text(text.to_owned())
    }

    #[test]
    fn a_field_is_whatever_stands_there() {
        let read = |json: &str| serde_json::from_str::<Field>(json).unwrap();
        assert_eq!(read("null"), Field::Absent);
        assert_eq!(read(r#""a\nb""#), text("a\nb"));
        assert_eq!(read("-7"), Field::Number("-7".to_owned()));
        assert_eq!(read("1.5"), Field::Number("1.5".to_owned()));
        assert_eq!(read("true"), Field::Bool(true));
        assert_eq!(read(r#"[1,{"a":[]}]"#), Field::Odd);
        assert_eq!(read(r#"{"a":{"b":1}}"#), Field::Odd);
        assert_eq!(
            read(&format!("{:?}", "x".repeat(MAX_TEXT))),
            text(&"x".repeat(MAX_TEXT))
        );
        assert_eq!(read(&format!("{:?}", "x".repeat(MAX_TEXT + 1))), Field::Odd);
    }

    #[test]
    fn a_record_is_its_wanted_fields_and_a_name_that_comes_twice_counts_as_last() {
        let mut fields = vec![Field::<MAX_TEXT>::Absent; 2];
        let mut read =
            |json: &str| read_record(json.as_bytes(), &["id", "email"], &mut fields).map(|is| (is, fields.clone()));
        let (is, fields) = read(r#"{"id":"a","other":[{"id":"b"}],"id":"c"}"#).unwrap();
        assert!(is);
        assert_eq!(fields, [text("c"), Field::Absent]);
        for other in ["5", "\"text\"", "null", "true", "[{\"id\":\"a\"}]", "1.5", "-1"] {
            assert_eq!(read(other).unwrap(), (false, vec![Field::Absent; 2]), "{other}");
        }
        assert!(read("{} {}").is_err(), "one body, one value");
    }
}
