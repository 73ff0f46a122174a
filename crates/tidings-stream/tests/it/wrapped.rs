//! Engines inside of another, to watch or to disturb how they are called.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::engine::{
    ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Receipt, Settlement, Wakes,
};
use tidings_stream::{
    Error, Member, MemoryEngine, Message, MessageId, NewMessage, PendingMessage, Retention,
    StartFrom, StreamName, StreamStats,
};

/// What happens before and after a call reaches the engine inside.
#[async_trait]
pub(crate) trait Hook: fmt::Debug + Send + Sync + 'static {
    /// Before the call of a name, for so many messages where there are some.
    async fn before(&self, _call: &'static str, _messages: usize) -> Result<(), Error> {
        Ok(())
    }

    /// After it.
    async fn after(&self, _call: &'static str) {}
}

/// Engines with a hook: handles of one store, which take turns to be called.
#[derive(Debug)]
pub(crate) struct Wrapped<H, E = MemoryEngine> {
    engines: Vec<E>,
    turn: AtomicUsize,
    pub(crate) hook: H,
    /// Where consumers wait; not the wake-ups of the engine inside if they are to be lost.
    wakes: Wakes,
}

impl<H: Hook> Wrapped<H> {
    pub(crate) fn new(hook: H) -> Arc<Self> {
        Self::around(MemoryEngine::new(), hook)
    }

    pub(crate) fn losing_wake_ups(hook: H) -> Arc<Self> {
        Arc::new(Self {
            engines: vec![MemoryEngine::new()],
            turn: AtomicUsize::new(0),
            hook,
            wakes: Wakes::default(),
        })
    }
}

impl<H: Hook, E: Engine> Wrapped<H, E> {
    pub(crate) fn around(engine: E, hook: H) -> Arc<Self> {
        Self::taking_turns(vec![engine], hook)
    }

    /// Consumers wait at the first one.
    pub(crate) fn taking_turns(engines: Vec<E>, hook: H) -> Arc<Self> {
        let wakes = engines[0].wakes().clone();
        Arc::new(Self {
            engines,
            turn: AtomicUsize::new(0),
            hook,
            wakes,
        })
    }

    fn next(&self) -> &E {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.engines[turn % self.engines.len()]
    }
}

macro_rules! pass_on {
    ($($method:ident($($name:ident: $type:ty),*) $([$messages:expr])? -> $output:ty;)*) => {
        #[async_trait]
        impl<H: Hook, E: Engine> Engine for Wrapped<H, E> {
            $(async fn $method(&self $(, $name: $type)*) -> Result<$output, Error> {
                let messages = [$($messages)?].first().copied().unwrap_or(0);
                self.hook.before(stringify!($method), messages).await?;
                let result = self.next().$method($($name),*).await;
                self.hook.after(stringify!($method)).await;
                result
            })*

            fn wakes(&self) -> &Wakes {
                &self.wakes
            }
        }
    };
}

pass_on! {
    append(stream: &StreamName, messages: Vec<NewMessage>, retention: Option<Retention>)
        -> Vec<MessageId>;
    set_retention(stream: &StreamName, retention: Retention) -> ();
    open_group(group: &GroupKey, start: StartFrom) -> ();
    seek(group: &GroupKey, to: StartFrom) -> ();
    delete_group(group: &GroupKey) -> bool;
    delete_message(stream: &StreamName, id: MessageId) -> bool;
    delete_stream(stream: &StreamName) -> bool;
    claim(consumer: &ConsumerKey, max: usize, options: ClaimOptions) -> Claimed;
    settle(group: &GroupKey, settlements: Arc<[Settlement]>) [settlements.len()] -> Vec<bool>;
    extend(group: &GroupKey, receipts: Arc<[Receipt]>, visibility: Duration) -> Vec<bool>;
    ready(groups: Arc<[GroupKey]>) -> Vec<bool>;
    check_in(consumers: Arc<[ConsumerKey]>, ttl: Duration) -> ();
    trim() -> u64;
    list(prefix: &str) -> Vec<StreamName>;
    stats(stream: &StreamName) -> StreamStats;
    read(stream: &StreamName, after: Option<MessageId>, max: usize) -> Vec<Message>;
    pending(group: &GroupKey, after: Option<MessageId>, max: usize) -> Vec<PendingMessage>;
    members(group: &GroupKey) -> Vec<Member>;
}
