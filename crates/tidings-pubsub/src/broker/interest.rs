use std::fmt;

use crate::{Pattern, Topic};

/// What a subscription asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Interest {
    Topic(Topic),
    Pattern(Pattern),
}

impl Interest {
    #[cfg(any(test, feature = "postgres", feature = "redis"))]
    /// Whether the messages of this topic are wanted by it.
    pub(crate) fn includes(&self, name: &str) -> bool {
        match self {
            Self::Topic(topic) => topic.as_str() == name,
            Self::Pattern(pattern) => pattern.matches_name(name),
        }
    }
}

impl From<&Topic> for Interest {
    fn from(topic: &Topic) -> Self {
        Self::Topic(topic.clone())
    }
}

impl From<&Pattern> for Interest {
    fn from(pattern: &Pattern) -> Self {
        Self::Pattern(pattern.clone())
    }
}

impl fmt::Display for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => topic.fmt(f),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}
