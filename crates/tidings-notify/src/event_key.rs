use std::fmt;
use std::str::FromStr;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};

use crate::InvalidName;
use crate::user::check_name;

/// What an event is about, if a later event about the same replaces it in the inbox, such as the
/// progress of one upload: an opaque string of 1 to 255 bytes without control characters. Clones share
/// the text.
///
/// An event with a key archives the user's earlier events with that key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventKey(ArcStr);

impl EventKey {
    /// Checks and takes a key.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when the text is empty, longer than 255 bytes, or has a control character.
    pub fn new(key: impl AsRef<str>) -> Result<Self, InvalidName> {
        check_name(key.as_ref()).map(Self)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventKey {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for EventKey {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<EventKey> for String {
    fn from(key: EventKey) -> Self {
        key.as_str().to_owned()
    }
}
