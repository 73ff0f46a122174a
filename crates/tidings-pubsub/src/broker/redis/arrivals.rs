use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidings_redis::redis::{PushInfo, PushKind, Value};

use crate::Pattern;
use crate::broker::interest::Interest;
use crate::broker::redis::channels::Channels;
use crate::broker::remote::Remote;

/// What the server sends on one connection, in its order.
///
/// Of a message it sends one copy for its channel, and one for each pattern that matches. One of them
/// is delivered, to all who want the message in any way. Which one is clear from what has been
/// confirmed before, because that travels on the same connection.
#[derive(Debug)]
pub(super) struct Arrivals {
    channels: Channels,
    remote: Arc<Remote>,
    /// The session that listens; none does as long as it is zero.
    session: AtomicU64,
    confirmed: Mutex<Confirmed>,
}

/// What the server sends, by their names there.
#[derive(Debug, Default)]
struct Confirmed {
    channels: HashSet<Vec<u8>>,
    patterns: BTreeMap<Vec<u8>, Pattern>,
}

impl Arrivals {
    pub(super) fn new(channels: Channels, remote: Arc<Remote>) -> Self {
        Self {
            channels,
            remote,
            session: AtomicU64::new(0),
            confirmed: Mutex::default(),
        }
    }

    /// Delivers to this session from now on.
    pub(super) fn begin(&self, session: u64) {
        self.session.store(session, Ordering::Release);
    }

    /// Takes what has arrived. Called by the task that reads the connection, and never waits.
    pub(super) fn take(&self, PushInfo { kind, data }: PushInfo) {
        let mut texts = data.into_iter().map_while(|value| match value {
            Value::BulkString(text) => Some(text),
            _ => None,
        });
        let (first, second, third) = (texts.next(), texts.next(), texts.next());
        match (kind, first, second, third) {
            (PushKind::Message, Some(channel), Some(payload), _) => {
                self.deliver(&channel, payload.into());
            }
            (PushKind::PMessage, Some(glob), Some(channel), Some(payload)) => {
                let is_first = self.confirmed().is_first(&glob, &channel, &self.channels);
                if is_first {
                    self.deliver(&channel, payload.into());
                }
            }
            (PushKind::Subscribe, Some(channel), ..) => {
                self.confirmed().channels.insert(channel);
            }
            (PushKind::Unsubscribe, Some(channel), ..) => {
                self.confirmed().channels.remove(&channel);
            }
            (PushKind::PSubscribe, Some(glob), ..) => {
                if let Some(pattern) = self.channels.pattern(&glob) {
                    self.confirmed().patterns.insert(glob, pattern);
                }
            }
            (PushKind::PUnsubscribe, Some(glob), ..) => {
                self.confirmed().patterns.remove(&glob);
            }
            _ => {}
        }
    }

    fn deliver(&self, channel: &[u8], payload: Bytes) {
        let Some(topic) = self.channels.topic(channel) else {
            return;
        };
        let session = self.session.load(Ordering::Acquire);
        let is_live = |interest: &Interest| self.is_confirmed(interest);
        self.remote.deliver(session, topic, payload, is_live);
    }

    fn is_confirmed(&self, interest: &Interest) -> bool {
        let confirmed = self.confirmed();
        match interest {
            Interest::Topic(topic) => {
                let channel = self.channels.channel(topic);
                confirmed.channels.contains(channel.as_bytes())
            }
            Interest::Pattern(pattern) => {
                let glob = self.channels.glob(pattern);
                confirmed.patterns.contains_key(glob.as_bytes())
            }
        }
    }

    fn confirmed(&self) -> MutexGuard<'_, Confirmed> {
        // Nothing that can panic runs under the lock.
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Confirmed {
    /// Whether the copy for this pattern is the one to deliver: there is none for the channel, and
    /// no other pattern that matches comes before in the order of their names.
    fn is_first(&self, glob: &[u8], channel: &[u8], channels: &Channels) -> bool {
        if self.channels.contains(channel) {
            return false;
        }
        let Some(topic) = channels.topic(channel) else {
            return false;
        };
        let mut patterns = self.patterns.iter();
        let first = patterns.find(|(_, pattern)| pattern.matches_name(topic));
        first.is_some_and(|(name, _)| name == glob)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::broker::remote::Patterns;
    use crate::{Received, SubscribeOptions, Subscription, Topic};

    fn topic(name: &str) -> Topic {
        format!("app.default.{name}").parse().unwrap()
    }

    fn pattern(name: &str) -> Pattern {
        format!("app.default.{name}").parse().unwrap()
    }

    /// A server that behaves as if it had been asked, and sends what a test gives it.
    struct Fixture {
        remote: Arc<Remote>,
        channels: Channels,
        arrivals: Arrivals,
    }

    impl Fixture {
        fn new() -> Self {
            let remote = Arc::new(Remote::new(Patterns::Supported));
            let channels = Channels::new("t".into());
            let arrivals = Arrivals::new(channels.clone(), Arc::clone(&remote));
            arrivals.begin(remote.begin());
            Self {
                remote,
                channels,
                arrivals,
            }
        }

        /// Reconnects: nothing is confirmed.
        fn reconnect(&mut self) {
            self.arrivals = Arrivals::new(self.channels.clone(), Arc::clone(&self.remote));
            self.arrivals.begin(self.remote.begin());
        }

        fn push(&self, kind: PushKind, texts: &[&str]) {
            let data = texts.iter().map(|it| Value::BulkString((*it).into()));
            let data = data.collect();
            self.arrivals.take(PushInfo { kind, data });
        }

        fn confirm(&self, interest: &Interest) {
            match interest {
                Interest::Topic(topic) => {
                    self.push(PushKind::Subscribe, &[&self.channels.channel(topic)]);
                }
                Interest::Pattern(pattern) => {
                    self.push(PushKind::PSubscribe, &[&self.channels.glob(pattern)]);
                }
            }
        }

        async fn subscription(&self, interests: &[Interest]) -> Subscription {
            let subscribed = self
                .remote
                .subscribe(Vec::new(), SubscribeOptions::default());
            let subscription = subscribed.await.unwrap();
            for interest in interests {
                let asking = async {
                    match interest {
                        Interest::Topic(topic) => subscription.topics().add(topic).await,
                        Interest::Pattern(it) => subscription.topics().add_pattern(it).await,
                    }
                };
                let confirming = async {
                    self.remote.take_changes();
                    self.confirm(interest);
                    self.remote.confirm(std::slice::from_ref(interest));
                };
                let (asked, ()) = tokio::join!(asking, confirming);
                asked.unwrap();
            }
            subscription
        }

        fn message(&self, name: &str, payload: &str) {
            let channel = self.channels.channel(&topic(name));
            self.push(PushKind::Message, &[&channel, payload]);
        }

        fn by_pattern(&self, glob: &str, name: &str, payload: &str) {
            let glob = self.channels.glob(&pattern(glob));
            let channel = self.channels.channel(&topic(name));
            self.push(PushKind::PMessage, &[&glob, &channel, payload]);
        }
    }

    /// The payloads that can be received at once, and `lagged` for each report.
    fn now(subscription: &mut Subscription) -> Vec<String> {
        std::iter::from_fn(|| subscription.recv().now_or_never().flatten())
            .map(|received| match received {
                Received::Message(it) => String::from_utf8(it.payload().to_vec()).unwrap(),
                Received::Lagged(_) => "lagged".to_owned(),
            })
            .collect()
    }

    fn wants(topics: &[&str], patterns: &[&str]) -> Vec<Interest> {
        let topics = topics.iter().map(|it| Interest::Topic(topic(it)));
        let patterns = patterns.iter().map(|it| Interest::Pattern(pattern(it)));
        topics.chain(patterns).collect()
    }

    #[tokio::test]
    async fn one_copy_of_each_message_is_delivered_to_all_who_want_it() {
        let fixture = Fixture::new();
        let mut by_topic = fixture.subscription(&wants(&["a"], &[])).await;
        let mut by_both = fixture.subscription(&wants(&["a"], &["a*", "*"])).await;
        let mut by_pattern = fixture.subscription(&wants(&[], &["*"])).await;
        // In whatever order the server goes through its patterns.
        for order in [["a*", "*"], ["*", "a*"]] {
            fixture.message("a", "one");
            for glob in order {
                fixture.by_pattern(glob, "a", "one");
            }
            for glob in order {
                fixture.by_pattern(glob, "ab", "two");
            }
            fixture.by_pattern("*", "b", "three");
            assert_eq!(now(&mut by_topic), ["one"]);
            let all = ["one", "two", "three"];
            assert_eq!(now(&mut by_both), all);
            assert_eq!(now(&mut by_pattern), all);
        }
    }

    #[tokio::test]
    async fn a_topic_that_is_left_between_two_copies_is_not_delivered_twice() {
        let fixture = Fixture::new();
        let mut subscription = fixture.subscription(&wants(&["a"], &["*"])).await;
        fixture.message("a", "one");
        subscription.topics().remove(&topic("a")).await.unwrap();
        fixture.by_pattern("*", "a", "one");
        // The server's reply to it comes later.
        fixture.message("a", "two");
        fixture.by_pattern("*", "a", "two");
        fixture.push(PushKind::Unsubscribe, &["t:app.default.a"]);
        fixture.by_pattern("*", "a", "three");
        assert_eq!(now(&mut subscription), ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn a_pattern_that_is_not_back_yet_may_miss_more_than_the_topic_that_is() {
        let mut fixture = Fixture::new();
        let mut subscription = fixture.subscription(&wants(&["a"], &["*"])).await;
        fixture.reconnect();
        let [topic, star] = <[Interest; 2]>::try_from(wants(&["a"], &["*"])).unwrap();
        fixture.confirm(&topic);
        fixture.message("a", "one");
        // Here `b` is lost, which cannot be known.
        fixture.confirm(&star);
        fixture.remote.confirm(&[topic, star]);
        fixture.by_pattern("*", "b", "two");
        let expected = ["lagged", "one", "lagged", "two"];
        assert_eq!(now(&mut subscription), expected);
    }

    #[tokio::test]
    async fn messages_that_are_faster_than_the_replies_come_after_one_report() {
        let mut fixture = Fixture::new();
        let mut subscription = fixture.subscription(&wants(&["a"], &["*"])).await;
        fixture.reconnect();
        let interests = wants(&["a"], &["*"]);
        for interest in &interests {
            fixture.confirm(interest);
        }
        for payload in ["one", "two"] {
            fixture.message("a", payload);
            fixture.by_pattern("*", "a", payload);
        }
        fixture.remote.confirm(&interests);
        let expected = ["lagged", "one", "two"];
        assert_eq!(now(&mut subscription), expected);
    }

    #[tokio::test]
    async fn what_is_no_message_is_ignored() {
        let fixture = Fixture::new();
        let mut subscription = fixture.subscription(&wants(&["a"], &["*"])).await;
        for kind in [
            PushKind::Message,
            PushKind::PMessage,
            PushKind::PSubscribe,
            PushKind::Invalidate,
        ] {
            for texts in [
                &[][..],
                &["t"],
                &["other:app.default.a", "x"],
                &["t:nothing", "t:app.default.a"],
                &["t:", "t:", "x"],
            ] {
                fixture.push(kind.clone(), texts);
            }
        }
        assert!(now(&mut subscription).is_empty());
    }
}
