mod panics;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::FutureExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use proptest::prelude::*;
use tokio::task::yield_now;
use tokio_util::task::AbortOnDropHandle;

use tidings_reconnect::Timing;

use super::session::{Failure, Link, Session, keep_listening};
use super::*;
use crate::{Lagged, Namespace, Received, telemetry};

/// A server that keeps an account, and whose connections can be broken.
#[derive(Default)]
struct Server {
    state: Mutex<Account>,
    broken: Notify,
    /// What the connection that is open will find, and that there is something.
    sent: Mutex<VecDeque<(&'static str, &'static str)>>,
    arriving: Notify,
}

#[derive(Default)]
struct Account {
    /// What the connection that is open listens to.
    listens: BTreeSet<String>,
    forbidden: BTreeSet<String>,
    is_down: bool,
    connections: u64,
    commands: Vec<(char, usize)>,
    session: u64,
    /// The last connection that was broken.
    cut: Option<u64>,
}

impl Server {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.state.lock().unwrap()
    }

    fn cut(&self) {
        let mut account = self.account();
        account.cut = Some(account.session);
        self.broken.notify_waiters();
    }

    fn send(&self, topic: &'static str, payload: &'static str) {
        self.sent.lock().unwrap().push_back((topic, payload));
        self.arriving.notify_one();
    }
}

struct TestLink(Arc<Server>, Arc<Remote>);

struct TestSession(Arc<Server>, Arc<Remote>, u64);

impl Link for TestLink {
    type Session = TestSession;

    async fn connect(&self, number: u64) -> Result<TestSession, Error> {
        let mut account = self.0.account();
        account.connections += 1;
        if account.is_down {
            return Err(Error::backend("down"));
        }
        account.listens.clear();
        account.session = number;
        Ok(TestSession(
            Arc::clone(&self.0),
            Arc::clone(&self.1),
            number,
        ))
    }
}

impl Session for TestSession {
    type Arrival = (&'static str, &'static str);

    async fn next(&mut self) -> Result<Self::Arrival, Error> {
        loop {
            let broken = self.0.broken.notified();
            let sent = self.0.sent.lock().unwrap().pop_front();
            if let Some(sent) = sent {
                return Ok(sent);
            }
            // The future that was told of it may have been dropped.
            if self.0.account().cut == Some(self.2) {
                return Err(Error::backend("cut"));
            }
            tokio::select! {
                () = broken => {}
                () = self.0.arriving.notified() => {}
            }
        }
    }

    async fn deliver(&mut self, (name, payload): Self::Arrival) {
        let topic = topic(name);
        self.1
            .deliver(self.2, topic.as_str(), payload.into(), |_| true);
    }

    async fn listen(&mut self, topics: &[Interest]) -> Result<(), Failure> {
        yield_now().await;
        let mut account = self.0.account();
        account.commands.push(('+', topics.len()));
        let names = topics.iter().map(Interest::to_string);
        if names.clone().any(|name| account.forbidden.contains(&name)) {
            return Err(Failure::Refused(Error::backend("forbidden")));
        }
        account.listens.extend(names);
        Ok(())
    }

    async fn unlisten(&mut self, topics: &[Interest]) -> Result<(), Failure> {
        yield_now().await;
        let mut account = self.0.account();
        account.commands.push(('-', topics.len()));
        for topic in topics {
            assert!(account.listens.remove(&topic.to_string()), "{topic}");
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

struct Broker {
    server: Arc<Server>,
    remote: Arc<Remote>,
    _task: AbortOnDropHandle<()>,
}

impl Broker {
    fn start() -> Self {
        let server = Arc::<Server>::default();
        let remote = Arc::new(Remote::new(Patterns::Supported));
        let timing = Timing {
            reply_limit: Duration::from_secs(1),
            health_interval: Duration::from_secs(1),
        };
        let link = TestLink(Arc::clone(&server), Arc::clone(&remote));
        let task = keep_listening(link, Arc::clone(&remote), timing);
        Self {
            server,
            remote,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }

    async fn subscribe(&self, names: &[&str]) -> Result<Subscription, Error> {
        let topics = names.iter().copied().map(topic).collect();
        self.remote
            .subscribe(topics, SubscribeOptions::default())
            .await
    }

    fn listens(&self) -> Vec<String> {
        self.server.account().listens.iter().cloned().collect()
    }

    fn deliver(&self, name: &str, payload: &'static str) {
        let session = self.server.account().session;
        let topic = topic(name);
        self.remote
            .deliver(session, topic.as_str(), payload.into(), |_| true);
    }
}

fn topic(name: &str) -> Topic {
    Namespace::default().topic(name).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| topic(name).to_string()).collect()
}

fn now(subscription: &mut Subscription) -> Vec<Result<String, Lagged>> {
    std::iter::from_fn(|| subscription.recv().now_or_never().flatten())
        .map(|received| match received {
            Received::Message(message) => {
                Ok(String::from_utf8(message.payload().to_vec()).unwrap())
            }
            Received::Lagged(lagged) => Err(lagged),
        })
        .collect()
}

/// Lets all tasks run for this long; all time here is the tests' own.
async fn settle(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_is_asked_once_and_again_when_the_last_one_leaves() {
    let broker = Broker::start();
    let first = broker.subscribe(&["a", "b", "c"]).await.unwrap();
    assert_eq!(broker.listens(), names(&["a", "b", "c"]));
    let second = broker.subscribe(&["b", "c"]).await.unwrap();
    first.topics().remove(&topic("c")).await.unwrap();
    drop(first);
    settle(Duration::from_millis(1)).await;
    assert_eq!(broker.listens(), names(&["b", "c"]));
    drop(second);
    settle(Duration::from_millis(1)).await;
    assert_eq!(broker.listens(), names(&[]));
    let expected = [('+', 3), ('-', 1), ('-', 2)];
    assert_eq!(broker.server.account().commands, expected);
}

/// The first connection is not one that was made again.
#[tokio::test(start_paused = true)]
async fn metrics_count_connections_that_were_made_again() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let broker = Broker::start();
    let _subscription = broker.subscribe(&["a"]).await.unwrap();
    for _ in 0..3 {
        broker.server.account().is_down = true;
        broker.server.cut();
        settle(Duration::from_secs(5)).await;
        broker.server.account().is_down = false;
        settle(Duration::from_secs(60)).await;
    }
    assert!(broker.server.account().connections > 4);
    let counted = snapshotter.snapshot().into_vec();
    let counted: Vec<_> = counted
        .into_iter()
        .map(|(key, _, _, value)| (key.key().name().to_owned(), value))
        .collect();
    let expected = (telemetry::RECONNECTS.to_owned(), DebugValue::Counter(3));
    assert_eq!(counted, [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_given_up_while_it_is_made_leaves_nothing() {
    let broker = Broker::start();
    let _other = broker.subscribe(&["other"]).await.unwrap();
    for yields in 0..10 {
        {
            let mut subscribing = Box::pin(broker.subscribe(&["a"]));
            for _ in 0..yields {
                assert!(
                    (&mut subscribing)
                        .now_or_never()
                        .is_none_or(|it| it.is_ok())
                );
                yield_now().await;
                if broker.listens().len() == 2 {
                    break;
                }
            }
        }
        settle(Duration::from_millis(1)).await;
        assert_eq!(broker.listens(), names(&["other"]), "{yields}");
        assert!(broker.remote.lock().unwrap().waiting.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_a_topic_and_giving_it_up_at_once_replies_both() {
    let broker = Broker::start();
    let subscription = broker.subscribe(&["other"]).await.unwrap();
    let a = topic("a");
    let (asked, given_up) = tokio::join!(
        subscription.topics().add(&a),
        subscription.topics().remove(&a)
    );
    asked.unwrap();
    given_up.unwrap();
    settle(Duration::from_millis(1)).await;
    assert_eq!(broker.listens(), names(&["other"]));
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_no_business_of_those_who_come_later() {
    let broker = Broker::start();
    let early = broker.subscribe(&["a", "b"]).await.unwrap();
    broker.server.account().is_down = true;
    broker.server.cut();
    settle(Duration::from_secs(1)).await;
    early.topics().remove(&topic("a")).await.unwrap();
    broker.server.account().is_down = false;
    settle(Duration::from_secs(10)).await;
    let mut late = broker.subscribe(&["a", "b"]).await.unwrap();
    assert_eq!(now(&mut late), []);
}

#[tokio::test(start_paused = true)]
async fn the_gap_is_reported_once_the_topic_is_back_and_before_what_follows() {
    let broker = Broker::start();
    let mut subscription = broker.subscribe(&["a", "b"]).await.unwrap();
    broker.deliver("a", "one");
    broker.server.account().is_down = true;
    broker.server.cut();
    settle(Duration::from_secs(60)).await;
    assert_eq!(now(&mut subscription), [Ok("one".to_owned())]);
    broker.server.account().is_down = false;
    settle(Duration::from_secs(5)).await;
    broker.deliver("a", "two");
    let expected = [Err(Lagged::unknown()), Ok("two".to_owned())];
    assert_eq!(now(&mut subscription), expected);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_faster_than_the_word_of_its_topic_comes_after_the_gap() {
    let broker = Broker::start();
    let mut subscription = broker.subscribe(&["a"]).await.unwrap();
    let old = broker.server.account().session;
    broker.remote.end();
    let new = broker.remote.begin();
    let topic = topic("a");
    let deliver = |session, payload: &'static str| {
        broker
            .remote
            .deliver(session, topic.as_str(), payload.into(), |_| true);
    };
    deliver(old, "stale");
    deliver(new, "fast");
    broker.remote.confirm(&[Interest::Topic(topic)]);
    let expected = [Err(Lagged::unknown()), Ok("fast".to_owned())];
    assert_eq!(now(&mut subscription), expected);
}

#[tokio::test]
async fn a_break_before_the_word_of_a_topic_that_had_a_message_is_reported() {
    let broker = Broker::start();
    let mut subscription = broker.subscribe(&["a"]).await.unwrap();
    broker.remote.end();
    let new = broker.remote.begin();
    let topic = topic("a");
    broker
        .remote
        .deliver(new, topic.as_str(), "fast".into(), |_| true);
    broker.remote.end();
    broker.remote.begin();
    broker.remote.confirm(&[Interest::Topic(topic)]);
    let gap = || Err(Lagged::unknown());
    assert_eq!(
        now(&mut subscription),
        [gap(), Ok("fast".to_owned()), gap()]
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_to_connect_become_rare_and_stop_when_no_subscription_is_left() {
    let broker = Broker::start();
    broker.server.account().is_down = true;
    assert!(broker.subscribe(&["a"]).await.is_err());
    settle(Duration::from_secs(3600)).await;
    assert_eq!(broker.server.account().connections, 1);

    broker.server.account().is_down = false;
    let subscription = broker.subscribe(&["a"]).await.unwrap();
    broker.server.account().is_down = true;
    broker.server.cut();
    let before = broker.server.account().connections;
    settle(Duration::from_secs(3600)).await;
    let attempts = broker.server.account().connections - before;
    assert!((700..1500).contains(&attempts), "{attempts} in an hour");
    drop(subscription);
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_harms_no_other_and_is_asked_for_again() {
    let broker = Broker::start();
    let forbidden = topic("b").to_string();
    broker.server.account().forbidden.insert(forbidden.clone());
    let (good, bad) = tokio::join!(broker.subscribe(&["a", "c"]), broker.subscribe(&["b"]));
    assert!(bad.is_err());
    assert_eq!(broker.listens(), names(&["a", "c"]));
    drop(good);

    // One that was had, and is forbidden when the connection is new.
    broker.server.account().forbidden.clear();
    let mut had = broker.subscribe(&["b"]).await.unwrap();
    broker.server.account().forbidden.insert(forbidden);
    broker.server.cut();
    settle(Duration::from_secs(10)).await;
    // Its subscribers get a report when the loss begins, once, and where it ends.
    assert_eq!(now(&mut had), [Err(Lagged::unknown())]);
    settle(Duration::from_secs(10)).await;
    assert_eq!(now(&mut had), []);
    broker.server.account().forbidden.clear();
    settle(Duration::from_secs(2)).await;
    assert_eq!(now(&mut had), [Err(Lagged::unknown())]);
    assert_eq!(broker.listens(), names(&["b"]));
}

#[tokio::test(start_paused = true)]
async fn regression_a_topic_that_is_asked_for_again_outlives_the_failure_before() {
    let broker = Broker::start();
    let subscription = broker.subscribe(&["other"]).await.unwrap();
    let (a, forbidden) = (topic("a"), topic("a").to_string());
    broker.server.account().forbidden.insert(forbidden.clone());
    let mut failing = Box::pin(subscription.topics().add(&a));
    assert!((&mut failing).now_or_never().is_none());
    // The server has replied, but this one has not got it yet.
    settle(Duration::from_millis(1)).await;
    broker.server.account().forbidden.remove(&forbidden);
    subscription.topics().remove(&a).await.unwrap();
    subscription.topics().add(&a).await.unwrap();
    assert!(failing.await.is_err());
    settle(Duration::from_millis(1)).await;
    assert_eq!(broker.listens(), names(&["a", "other"]));
}

#[tokio::test(start_paused = true)]
async fn regression_connections_that_break_at_once_are_made_ever_less_often() {
    let broker = Broker::start();
    let _subscription = broker.subscribe(&["a"]).await.unwrap();
    let before = broker.server.account().connections;
    // For an hour, each connection lives for a moment.
    for _ in 0..3600 {
        broker.server.cut();
        settle(Duration::from_secs(1)).await;
    }
    let attempts = broker.server.account().connections - before;
    assert!((600..1500).contains(&attempts), "{attempts} in an hour");
    // One that lasts is the end of it.
    settle(Duration::from_secs(60)).await;
    let before = broker.server.account().connections;
    broker.server.cut();
    settle(Duration::from_millis(60)).await;
    assert_eq!(broker.server.account().connections, before + 1);
}

#[tokio::test(start_paused = true)]
async fn patterns_are_asked_for_left_and_restored_like_topics() {
    let broker = Broker::start();
    let pattern = Namespace::default().pattern("a*").unwrap();
    let mut subscription = broker.subscribe(&["a"]).await.unwrap();
    subscription.topics().add_pattern(&pattern).await.unwrap();
    assert_eq!(broker.listens(), names(&["a", "a*"]));
    broker.deliver("a", "once");
    broker.deliver("ab", "by the pattern");
    broker.deliver("b", "for nobody");
    broker.server.cut();
    settle(Duration::from_secs(1)).await;
    let expected = [
        Ok("once".to_owned()),
        Ok("by the pattern".to_owned()),
        Err(Lagged::unknown()),
    ];
    assert_eq!(now(&mut subscription), expected);
    assert_eq!(broker.listens(), names(&["a", "a*"]));
    subscription
        .topics()
        .remove_pattern(&pattern)
        .await
        .unwrap();
    settle(Duration::from_millis(1)).await;
    assert_eq!(broker.listens(), names(&["a"]));
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(BTreeSet<u8>),
    Drop(prop::sample::Index),
    Join(prop::sample::Index, u8),
    Leave(prop::sample::Index, u8),
    Cut,
    Yield,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        prop::collection::btree_set(0..5_u8, 0..4).prop_map(Step::Subscribe),
        index().prop_map(Step::Drop),
        (index(), 0..5_u8).prop_map(|(which, topic)| Step::Join(which, topic)),
        (index(), 0..5_u8).prop_map(|(which, topic)| Step::Leave(which, topic)),
        Just(Step::Cut),
        Just(Step::Yield),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked for, given up and broken in whatever order, in the end the server is
    /// listened to for exactly what is subscribed to.
    #[test]
    fn in_the_end_the_server_sends_what_is_wanted(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let broker = Broker::start();
            let mut kept: Vec<(Subscription, BTreeSet<u8>)> = Vec::new();
            let all = ["0", "1", "2", "3", "4"];
            for step in steps {
                match step {
                    Step::Subscribe(topics) => {
                        let names: Vec<_> = topics.iter().map(|it| all[usize::from(*it)]).collect();
                        kept.push((broker.subscribe(&names).await.unwrap(), topics));
                    }
                    Step::Drop(which) if !kept.is_empty() => {
                        drop(kept.remove(which.index(kept.len())));
                    }
                    Step::Join(which, name) if !kept.is_empty() => {
                        let index = which.index(kept.len());
                        let (subscription, topics) = &mut kept[index];
                        subscription.topics().add(&topic(all[usize::from(name)])).await.unwrap();
                        topics.insert(name);
                    }
                    Step::Leave(which, name) if !kept.is_empty() => {
                        let index = which.index(kept.len());
                        let (subscription, topics) = &mut kept[index];
                        subscription.topics().remove(&topic(all[usize::from(name)])).await.unwrap();
                        topics.remove(&name);
                    }
                    Step::Drop(_) | Step::Join(..) | Step::Leave(..) => {}
                    Step::Cut => broker.server.cut(),
                    Step::Yield => yield_now().await,
                }
            }
            settle(Duration::from_secs(10)).await;
            let wanted: BTreeSet<u8> = kept.iter().flat_map(|(_, topics)| topics.clone()).collect();
            let wanted: Vec<_> = wanted.iter().map(|it| all[usize::from(*it)]).collect();
            // The listener ends once nothing is wanted and the connection was cut.
            if !wanted.is_empty() {
                assert_eq!(broker.listens(), names(&wanted));
            }
        });
    }
}
