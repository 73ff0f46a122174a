use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name that the caller gives to an endpoint of a [`Dispatcher`](crate::Dispatcher): any text.
///
/// Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EndpointId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for EndpointId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Arc<str>> for EndpointId {
    fn from(name: Arc<str>) -> Self {
        Self(name)
    }
}

impl From<&EndpointId> for EndpointId {
    fn from(id: &EndpointId) -> Self {
        id.clone()
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for EndpointId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// For look-ups with a `&str` in a map with ids as keys.
impl Borrow<str> for EndpointId {
    fn borrow(&self) -> &str {
        &self.0
    }
}
