use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Behaviour, Head, Reply};

/// Decides which [`Behaviour`] each request meets.
///
/// An [`Reply`] or a [`Behaviour`] becomes a script that always does the same.
#[derive(Clone)]
pub struct Script(Arc<dyn Fn(&Head) -> Behaviour + Send + Sync>);

impl Script {
    /// Treats every request alike.
    pub fn always(behaviour: impl Into<Behaviour>) -> Self {
        let behaviour = behaviour.into();
        Self::by(move |_| behaviour.clone())
    }

    /// Treats the first requests in these ways, one each, and all later ones like the last.
    ///
    /// Requests that arrive at the same time take their turns in either order.
    pub fn sequence<I>(first: I, then: impl Into<Behaviour>) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Behaviour>,
    {
        let first: Vec<Behaviour> = first.into_iter().map(Into::into).collect();
        let then = then.into();
        let turn = AtomicUsize::new(0);
        Self::by(move |_| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            first.get(turn).unwrap_or(&then).clone()
        })
    }

    /// Lets a function decide by the head of the request. Should it panic, the connection is
    /// dropped.
    pub fn by(decide: impl Fn(&Head) -> Behaviour + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// The behaviour that a request meets; asking counts as its turn. A script can be made of others
    /// this way.
    pub fn decide(&self, head: &Head) -> Behaviour {
        (self.0)(head)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl From<Behaviour> for Script {
    fn from(behaviour: Behaviour) -> Self {
        Self::always(behaviour)
    }
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        Self::always(reply)
    }
}
