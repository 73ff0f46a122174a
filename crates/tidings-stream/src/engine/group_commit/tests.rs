use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

/// A store that appends when it is let, refuses messages that say so, and returns no ids of others.
struct Store {
    gate: Semaphore,
    /// The sizes of the batches that it was asked to append.
    batches: Mutex<Vec<usize>>,
    newest: AtomicUsize,
    fault: fn(Error) -> AppendError,
}

impl Store {
    fn new(fault: fn(Error) -> AppendError) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            batches: Mutex::default(),
            newest: AtomicUsize::new(0),
            fault,
        })
    }

    fn batches(&self) -> Vec<usize> {
        self.batches.lock().clone()
    }
}

impl Append for Store {
    async fn append(
        &self,
        _: &StreamName,
        messages: &[NewMessage],
        _: Option<Retention>,
    ) -> Result<Vec<MessageId>, AppendError> {
        self.batches.lock().push(messages.len());
        self.gate.acquire().await.unwrap().forget();
        if messages.iter().any(|message| message.payload == "bad") {
            return Err((self.fault)(Error::UnknownGroup));
        }
        let first = self.newest.fetch_add(messages.len(), Ordering::Relaxed) + 1;
        let known = (first..).zip(messages);
        let known = known.filter(|(_, message)| message.payload != "no id");
        Ok(known
            .map(|(number, _)| MessageId::from_u64(number as u64))
            .collect())
    }
}

fn stream(name: &str) -> StreamName {
    StreamName::new("app", "default", name).unwrap()
}

/// Starts to append messages with these payloads, one caller each.
fn callers(
    commit: &Arc<GroupCommit<Store>>,
    payloads: impl IntoIterator<Item = &'static str>,
) -> JoinSet<(&'static str, Appended)> {
    let mut callers = JoinSet::new();
    for payload in payloads {
        let commit = Arc::clone(commit);
        callers.spawn(async move {
            let (stream, messages) = (stream("s"), vec![NewMessage::new(payload)]);
            let appended = commit.append(&stream, messages, None);
            (payload, appended.await)
        });
    }
    callers
}

/// Lets every task run until it waits.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_queues_up_during_a_batch_makes_the_next() {
    let store = Store::new(AppendError::Refused);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = callers(&commit, ["first"]);
    settle_down().await;
    let rest = callers(&commit, ["a", "b", "c", "d"]);
    settle_down().await;
    assert_eq!(store.batches(), [1]);
    store.gate.add_permits(2);
    let first = first.join_all().await.remove(0).1.unwrap();
    assert_eq!(first, [MessageId::from_u64(1)]);
    let mut ids: Vec<_> = rest
        .join_all()
        .await
        .into_iter()
        .flat_map(|(_, ids)| ids.unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (2..=5).map(MessageId::from_u64).collect::<Vec<_>>());
    assert_eq!(store.batches(), [1, 4]);
}

#[tokio::test(start_paused = true)]
async fn another_retention_makes_another_batch_and_streams_do_not_wait_for_each_other() {
    let store = Store::new(AppendError::Refused);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let mut appends = JoinSet::new();
    for (name, max_len) in [("s", 1), ("s", 1), ("s", 2), ("s", 1), ("t", 1)] {
        let commit = Arc::clone(&commit);
        appends.spawn(async move {
            let retention = Some(Retention::default().with_max_len(max_len));
            let messages = vec![NewMessage::new("")];
            commit.append(&stream(name), messages, retention).await
        });
        settle_down().await;
    }
    // The first of each stream is under way.
    assert_eq!(store.batches(), [1, 1]);
    store.gate.add_permits(5);
    for appended in appends.join_all().await {
        appended.unwrap();
    }
    assert_eq!(store.batches(), [1; 5]);
}

#[tokio::test(start_paused = true)]
async fn regression_messages_whose_ids_are_not_returned_may_have_been_appended() {
    let store = Store::new(AppendError::Refused);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    store.gate.add_permits(1);
    let appended = callers(&commit, ["no id"]).join_all().await.remove(0).1;
    assert!(appended.unwrap_err().may_have_been_done());
}

#[tokio::test(start_paused = true)]
async fn a_caller_at_fault_fails_alone() {
    let store = Store::new(AppendError::Refused);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let callers = callers(&commit, ["a", "bad", "b"]);
    store.gate.add_permits(10);
    for (payload, appended) in callers.join_all().await {
        assert_eq!(
            appended.is_err(),
            payload == "bad",
            "{payload}: {appended:?}"
        );
    }
    assert_eq!(store.newest.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_leaves_it_open_what_happened_is_not_tried_again() {
    let store = Store::new(AppendError::Failed);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let callers = callers(&commit, ["a", "bad", "b"]);
    store.gate.add_permits(10);
    for (_, appended) in callers.join_all().await {
        assert!(matches!(appended, Err(Error::UnknownGroup)));
    }
    assert_eq!(store.batches(), [3]);
}

#[tokio::test(start_paused = true)]
async fn what_no_caller_waits_for_any_more_is_not_appended() {
    let store = Store::new(AppendError::Refused);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = callers(&commit, ["first"]);
    settle_down().await;
    let mut given_up = callers(&commit, ["a", "b"]);
    let last = callers(&commit, ["last"]);
    settle_down().await;
    given_up.shutdown().await;
    store.gate.add_permits(10);
    first.join_all().await;
    last.join_all().await;
    assert_eq!(store.batches(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_costs_nothing_after_a_while_and_can_be_used_again() {
    let store = Store::new(AppendError::Refused);
    let commit = Arc::new(GroupCommit::new(Arc::clone(&store)));
    store.gate.add_permits(10);
    for _ in 0..2 {
        callers(&commit, ["a"])
            .join_all()
            .await
            .remove(0)
            .1
            .unwrap();
        assert_eq!(commit.queues.lock().len(), 1);
        tokio::time::sleep(LINGER * 2).await;
        assert!(commit.queues.lock().is_empty());
    }
}

/// The task of a stream is gone with the runtime of the first call, and the next call makes another.
#[test]
fn regression_appending_outlives_the_runtime_of_the_first_call() {
    let store = Store::new(AppendError::Refused);
    store.gate.add_permits(2);
    let commit = GroupCommit::new(store);
    for number in 1..=2 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (stream, messages) = (stream("s"), vec![NewMessage::new("")]);
        let appended = runtime.block_on(commit.append(&stream, messages, None));
        assert_eq!(appended.unwrap(), [MessageId::from_u64(number)]);
    }
}
