//! A resolver that says what the test wants, for both transports.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidings::{Resolve, ResolveError, Resolved};

/// Gives its replies in turn, the last one for ever.
#[derive(Clone)]
pub(crate) struct Names(Arc<Mutex<(Vec<Vec<IpAddr>>, usize)>>);

impl Names {
    pub(crate) fn new(replies: &[&[&str]]) -> Self {
        let address = |text: &&str| text.parse().unwrap();
        let reply = |reply: &&[&str]| reply.iter().map(address).collect();
        Self(Arc::new(Mutex::new((
            replies.iter().map(reply).collect(),
            0,
        ))))
    }

    fn reply(&self) -> Vec<IpAddr> {
        let mut state = self.0.lock().unwrap();
        let (replies, asked) = &mut *state;
        let reply = replies[(*asked).min(replies.len() - 1)].clone();
        *asked += 1;
        reply
    }

    /// How many lookups there were.
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _name: &str) -> Result<Resolved, ResolveError> {
        Ok(self.reply().into_iter().collect())
    }
}

#[cfg(feature = "reqwest")]
impl reqwest::dns::Resolve for Names {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        // The transport replaces the port.
        let addresses = self.reply().into_iter();
        let sockets = addresses.map(|address| SocketAddr::new(address, 0));
        Box::pin(std::future::ready(Ok(Box::new(sockets) as _)))
    }
}

/// The URL of a name that only an injected resolver knows.
pub(crate) fn named(address: SocketAddr) -> String {
    format!("http://hooks.example.com:{}/", address.port())
}
