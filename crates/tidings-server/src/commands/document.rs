//! JSON as a server sent it, for people and programs to read.

use std::fmt;
use std::io::{self, Write};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON document, kept as the text that was received: what is printed are the bytes of the server, and a field that
/// this version does not know is shown too.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Document(Box<RawValue>);

impl Document {
    /// `None` if the text is not JSON.
    pub(super) fn new(json: String) -> Option<Self> {
        RawValue::from_string(json).ok().map(Self)
    }

    /// The JSON that was received.
    pub(super) fn json(&self) -> &str {
        self.0.get()
    }

    /// The parts that a command needs, if they are there.
    pub(super) fn parts<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.json()).ok()
    }

    /// Writes one line as `Line` shows it; other JSON is written unchanged.
    pub(super) fn write_line<'a, Line>(&'a self, out: &mut impl Write) -> io::Result<()>
    where
        Line: Deserialize<'a> + fmt::Display,
    {
        match self.parts::<Line>() {
            Some(line) => writeln!(out, "{line}"),
            None => writeln!(out, "{}", self.json()),
        }
    }

    /// Writes each field of an object on a line of its own, its value as it was received.
    pub(super) fn write_fields(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(Fields(fields)) = self.parts() else {
            return writeln!(out, "{}", self.json());
        };
        for (name, value) in fields {
            writeln!(out, "{name}: {value}")?;
        }
        Ok(())
    }
}

/// The fields of an object, in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_the_bytes_that_were_received() {
        let json = r#"{"b":1.10,"a":"\u00e9","c":{"z":1e400}}"#;
        let document = Document::new(json.to_owned()).unwrap();
        let mut lines = Vec::new();
        document.write_fields(&mut lines).unwrap();
        assert_eq!(lines, b"b: 1.10\na: \"\\u00e9\"\nc: {\"z\":1e400}\n");
        let mut other = Vec::new();
        let document = Document::new("[1.10]".to_owned()).unwrap();
        document.write_fields(&mut other).unwrap();
        assert_eq!(other, b"[1.10]\n");
        assert!(Document::new("<html>".to_owned()).is_none());
    }
}
