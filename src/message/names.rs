use uuid::Uuid;

/// The id of a message and, behind it, its type, which is empty if it has none.
///
/// Both are in one text, and in place if they are short: many messages may wait.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Names {
    Short {
        text: [u8; SHORT_BYTES],
        id_bytes: u8,
        type_bytes: u8,
    },
    Long {
        text: Box<str>,
        id_bytes: usize,
    },
}

/// Enough for a generated id and a type of 17 bytes. With more than this every message would be
/// larger.
const SHORT_BYTES: usize = 53;

const GENERATED_ID_PREFIX: &[u8] = b"msg_";
const GENERATED_ID_BYTES: u8 = 36;

impl Names {
    /// A new id, `msg_` and a UUID of version 7, without a type.
    pub(super) fn generate() -> Self {
        let mut text = [0; SHORT_BYTES];
        let (prefix, uuid) = text.split_at_mut(GENERATED_ID_PREFIX.len());
        prefix.copy_from_slice(GENERATED_ID_PREFIX);
        Uuid::now_v7().simple().encode_lower(uuid);
        Self::Short {
            text,
            id_bytes: GENERATED_ID_BYTES,
            type_bytes: 0,
        }
    }

    pub(super) fn new(id: &str, event_type: &str) -> Self {
        let mut text = [0; SHORT_BYTES];
        let short = text.get_mut(..id.len() + event_type.len());
        let lengths = (u8::try_from(id.len()), u8::try_from(event_type.len()));
        match (short, lengths) {
            (Some(short), (Ok(id_bytes), Ok(type_bytes))) => {
                let (start, end) = short.split_at_mut(id.len());
                start.copy_from_slice(id.as_bytes());
                end.copy_from_slice(event_type.as_bytes());
                Self::Short {
                    text,
                    id_bytes,
                    type_bytes,
                }
            }
            _ => Self::Long {
                text: [id, event_type].concat().into(),
                id_bytes: id.len(),
            },
        }
    }

    pub(super) fn id(&self) -> &str {
        self.split().0
    }

    pub(super) fn event_type(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        match self {
            Self::Short {
                text,
                id_bytes,
                type_bytes,
            } => {
                let (id, rest) = text.split_at(usize::from(*id_bytes));
                (as_text(id), as_text(&rest[..usize::from(*type_bytes)]))
            }
            Self::Long { text, id_bytes } => text.split_at(*id_bytes),
        }
    }
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the bytes were copied from a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_come_back() {
        for (id_bytes, type_bytes) in [(1, 0), (36, 17), (36, 18), (53, 0), (54, 0), (255, 255)] {
            let (id, event_type) = ("x".repeat(id_bytes), "y".repeat(type_bytes));
            let names = Names::new(&id, &event_type);
            assert_eq!(names.id(), id);
            assert_eq!(names.event_type(), event_type);
            let is_short = matches!(names, Names::Short { .. });
            assert_eq!(is_short, id_bytes + type_bytes <= SHORT_BYTES);
        }
        assert_eq!(size_of::<Names>(), 56);
    }

    #[test]
    fn names_are_equal_if_both_texts_are() {
        assert!(Names::new("ab", "c") == Names::new("ab", "c"));
        assert!(Names::new("ab", "c") != Names::new("a", "bc"));
        let generated = Names::generate();
        assert!(generated == Names::new(generated.id(), ""));
    }
}
