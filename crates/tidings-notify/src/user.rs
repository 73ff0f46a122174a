use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};

/// Longest [`UserId`] and [`EventType`](crate::EventType), in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Who a notification is for: a person or an account.
///
/// An opaque string of 1 to 255 bytes, compared byte by byte: no case is folded and no form of Unicode
/// is changed into another. What a path of a URL, a form or the eye would take for another name is not
/// allowed: `.` and `..`, a space at either end, control characters, and characters that change the
/// direction of the text. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(ArcStr);

impl UserId {
    /// Checks and takes a user's id.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says what is not allowed in it.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidName> {
        let id = id.as_ref();
        if matches!(id, "." | "..") {
            Err(InvalidName::Dots)
        } else if id.starts_with(char::is_whitespace) || id.ends_with(char::is_whitespace) {
            Err(InvalidName::Blank)
        } else if id.contains(changes_direction) {
            Err(InvalidName::Direction)
        } else {
            check_name(id).map(Self)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot be a user id or an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text is empty.
    #[error("expected 1 to 255 bytes, got 0")]
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("expected 1 to 255 bytes, got {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text has a line break, a NUL or another control character, which the wire formats use.
    #[error("expected no control characters")]
    ControlCharacter,
    /// The text is `.` or `..`, which a path of a URL does not keep. User ids only.
    #[error("expected a name other than `.` and `..`")]
    Dots,
    /// The text begins or ends with white space. User ids only.
    #[error("expected no space at either end")]
    Blank,
    /// The text has a character that changes its direction, so that it looks like another. User ids only.
    #[error("expected no character that changes the direction of text")]
    Direction,
    /// The text begins with `tidings.`, as the control events of a stream do. Event types only.
    #[error("expected a name that does not begin with `tidings.`")]
    Reserved,
}

/// The marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm.
fn changes_direction(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

pub(crate) fn check_name(text: &str) -> Result<ArcStr, InvalidName> {
    if text.is_empty() {
        Err(InvalidName::Empty)
    } else if text.len() > MAX_NAME_BYTES {
        Err(InvalidName::TooLong { length: text.len() })
    } else if text.chars().any(char::is_control) {
        Err(InvalidName::ControlCharacter)
    } else {
        Ok(text.into())
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<UserId> for String {
    fn from(user: UserId) -> Self {
        user.as_str().to_owned()
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by users be asked with a `&str`.
impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_means_the_same_in_a_path_a_form_and_to_the_eye() {
        for id in [
            "anna", "Anna", "a b", "...", ".a", "a@b.c", "\u{e9}", "e\u{301}", "日本", "🙂",
            "a/b?c#d%",
        ] {
            assert_eq!(UserId::new(id).unwrap().as_str(), id);
        }
        let long = "x".repeat(256);
        for (id, reason) in [
            ("", InvalidName::Empty),
            (&*long, InvalidName::TooLong { length: 256 }),
            ("a\tb", InvalidName::ControlCharacter),
            (".", InvalidName::Dots),
            ("..", InvalidName::Dots),
            (" a", InvalidName::Blank),
            ("a ", InvalidName::Blank),
            ("a\u{3000}", InvalidName::Blank),
            ("a\u{202e}b", InvalidName::Direction),
            ("\u{200f}a", InvalidName::Direction),
            ("a\u{2066}", InvalidName::Direction),
        ] {
            assert_eq!(UserId::new(id), Err(reason), "{id:?}");
        }
    }
}
