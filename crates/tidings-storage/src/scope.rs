//! What a route is for, and therefore what a key must be allowed to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Sends notifications
    Publish,
    /// Reads and changes inboxes, opens streams, asks who is online
    Read,
    /// Manages webhook endpoints and their deliveries
    Endpoints,
    /// Reads the metrics
    Metrics,
    /// Manages API keys, and so can get every scope
    Admin,
}

impl Scope {
    /// Every scope, in order.
    pub const ALL: [Self; 5] = [
        Self::Publish,
        Self::Read,
        Self::Endpoints,
        Self::Metrics,
        Self::Admin,
    ];

    /// Its name, as in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Endpoints => "endpoints",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scopes of a key: at least one, each once, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// `None` if there is none, or one twice.
    pub fn new(mut scopes: Vec<Scope>) -> Option<Self> {
        let given = scopes.len();
        scopes.sort_unstable();
        scopes.dedup();
        (given > 0 && scopes.len() == given).then_some(Self(scopes))
    }

    /// Whether a scope is among them.
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// The scopes in order.
    pub fn to_vec(&self) -> Vec<Scope> {
        self.0.clone()
    }

    /// Reads what [`Display`](fmt::Display) has written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let scope = |name: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
        Self::new(text.split(',').map(scope).collect::<Option<_>>()?)
    }
}

/// Separated by commas.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|scope| scope.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_set_with_one_spelling() {
        let scopes = Scopes::new(vec![Scope::Read, Scope::Publish]).unwrap();
        assert_eq!(scopes.to_string(), "publish,read");
        assert_eq!(Scopes::parse("publish,read"), Some(scopes.clone()));
        assert!(scopes.contains(Scope::Read) && !scopes.contains(Scope::Admin));
        assert_eq!(Scopes::new(vec![]), None);
        assert_eq!(Scopes::new(vec![Scope::Read, Scope::Read]), None);
        for text in ["", "read,", "Read", "read,read", "other"] {
            assert_eq!(Scopes::parse(text), None, "{text}");
        }
        for scope in Scope::ALL {
            let json = serde_json::to_value(scope).unwrap();
            assert_eq!(json, scope.as_str());
        }
    }
}
