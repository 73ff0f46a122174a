use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::{
    NEVER, from_start, key, number, numbered, recorder, some_consumer, streams, subscribe, until,
};
use crate::engine::{
    ClaimOptions, Claimed, ClaimedMessage, Engine, GroupKey, MAX_HELD_BACK, Outcome, Settlement,
};
use crate::{
    BatchError, HandlerError, Headers, Message, NewMessage, ORDERING_KEY, RetryDelay, StartFrom,
    Streams,
};

/// Messages with these ordering keys, none where a key is empty, and the numbers from 1 as payloads.
fn keyed<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<NewMessage> {
    let numbered = (1..).zip(keys);
    let messages = numbered.map(|(number, key): (u64, _)| {
        let message = NewMessage::new(number.to_string());
        match key {
            "" => message,
            key => message.with_ordering_key(key),
        }
    });
    messages.collect()
}

fn in_order(visibility: Duration) -> ClaimOptions {
    ClaimOptions {
        in_key_order: true,
        ..visibility.into()
    }
}

/// A group at the start of a stream with messages of these keys.
async fn group_with<'a>(
    engine: &Arc<dyn Engine>,
    keys: impl IntoIterator<Item = &'a str>,
) -> (Streams, GroupKey) {
    let streams = streams(engine.clone());
    let group = key(&streams, "s", "g");
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    streams.publish_batch("s", keyed(keys)).await.unwrap();
    (streams, group)
}

async fn claim(engine: &Arc<dyn Engine>, group: &GroupKey, max: usize) -> Claimed {
    let consumer = some_consumer(group);
    engine.claim(&consumer, max, in_order(NEVER)).await.unwrap()
}

fn numbers(claimed: &[ClaimedMessage]) -> Vec<(u64, u32)> {
    let said = |it: &ClaimedMessage| (number(&it.message), it.message.attempt);
    claimed.iter().map(said).collect()
}

async fn settle(
    engine: &Arc<dyn Engine>,
    group: &GroupKey,
    claimed: &[ClaimedMessage],
    outcome: Outcome,
) {
    let settlements = claimed.iter().map(|it| Settlement {
        receipt: it.receipt,
        outcome: outcome.clone(),
    });
    let obeyed = engine.settle(group, settlements.collect()).await.unwrap();
    assert!(obeyed.iter().all(|obeyed| *obeyed));
}

fn retry(delay: Duration) -> Outcome {
    let error = None;
    Outcome::Retry { delay, error }
}

/// What handlers do, by ordering key.
#[derive(Debug, Default)]
struct Watch {
    running: BTreeSet<String>,
    calls: BTreeMap<String, Vec<(u64, u32)>>,
    handled: BTreeSet<u64>,
}

/// A handler of one message that tells it to a watch, takes a while, and fails some first attempts.
async fn watched(watch: &Mutex<Watch>, message: &Message) -> Result<(), HandlerError> {
    let key = message.headers.get(ORDERING_KEY);
    if let Some(key) = key {
        let mut watch = watch.lock().unwrap();
        assert!(watch.running.insert(key.clone()), "two at a time of {key}");
        let calls = watch.calls.entry(key.clone()).or_default();
        calls.push((number(message), message.attempt));
    }
    tokio::time::sleep(Duration::from_millis(number(message) % 3)).await;
    let mut watch = watch.lock().unwrap();
    if let Some(key) = key {
        watch.running.remove(key);
    }
    if message.attempt == 1 && number(message).is_multiple_of(5) {
        return Err(HandlerError::retry("once more"));
    }
    watch.handled.insert(number(message));
    Ok(())
}

/// However many consumers a group has, and whether they have handlers, handlers of batches or pull: one
/// message of an ordering key is worked on at a time, and what fails comes again before the next.
pub async fn messages_of_a_key_are_handled_in_their_order_one_at_a_time(engine: Arc<dyn Engine>) {
    const KEYS: [&str; 6] = ["a", "b", "a \"quoted\\\" key\n", "", "ü", "\u{1}"];
    const COUNT: u64 = 180;
    let two = [streams(engine.clone()), streams(engine)];
    let (left, right) = (&two[0], &two[1]);
    let all = keyed(KEYS.into_iter().cycle().take(180));
    left.publish_batch("s", all[..90].to_vec()).await.unwrap();
    let watch = Arc::new(Mutex::new(Watch::default()));
    let options = from_start()
        .with_key_order()
        .with_concurrency(5)
        .with_max_batch(4)
        .with_visibility_timeout(NEVER)
        .with_retry_delay(RetryDelay::fixed(Duration::from_millis(3)));
    let watching = Arc::clone(&watch);
    let one_by_one = move |message: Message| {
        let watch = Arc::clone(&watching);
        async move { watched(&watch, &message).await }
    };
    let watching = Arc::clone(&watch);
    let in_batches = move |messages: Vec<Message>| {
        let watch = Arc::clone(&watching);
        async move {
            let mut failed = BatchError::none();
            for message in messages {
                if let Err(error) = watched(&watch, &message).await {
                    failed.push(message.id, error);
                }
            }
            failed.into_result()
        }
    };
    let first = subscribe(left, "s", "g", options.clone(), one_by_one).await;
    let second = right.subscribe_batch("s", "g", options.clone(), in_batches);
    let second = second.await.unwrap();
    let mut pulled = right.pull("s", "g", options).await.unwrap();
    let pulling = async {
        while let Some(pulled) = pulled.next().await {
            let ended = watched(&watch, &pulled.message).await;
            pulled.settle(ended).unwrap();
        }
    };
    let publishing = async {
        for message in &all[90..] {
            right.publish("s", message.clone()).await.unwrap();
        }
        until(|| async { watch.lock().unwrap().handled.len() as u64 == COUNT }).await;
        until(|| async { left.stats("s").await.unwrap().groups[0].pending == 0 }).await;
    };
    tokio::select! {
        () = pulling => panic!("the pull ended"),
        () = publishing => {}
    }
    first.close().await;
    second.close().await;
    let watch = watch.lock().unwrap();
    for (key, calls) in &watch.calls {
        let attempts = (1..=COUNT).zip(KEYS.into_iter().cycle());
        let own = attempts.filter(|(_, other)| other == key);
        let expected = own.flat_map(|(number, _)| {
            let attempts = if number.is_multiple_of(5) { 2 } else { 1 };
            (1..=attempts).map(move |attempt| (number, attempt))
        });
        assert_eq!(*calls, expected.collect::<Vec<_>>(), "{key:?}");
    }
    assert_eq!(watch.calls.len(), KEYS.len() - 1);
}

/// A message that waits for its next attempt holds back the later ones of its ordering key, and nothing else.
/// Handled or dead, it frees its key.
pub async fn a_failed_message_holds_back_its_key_and_nothing_else(engine: Arc<dyn Engine>) {
    let (streams, group) = group_with(&engine, ["a", "b", "a", "", "a", "b"]).await;
    let mut claimed = claim(&engine, &group, 10).await;
    assert_eq!(numbers(&claimed.messages), [(1, 1), (2, 1), (4, 1)]);
    settle(&engine, &group, &claimed.messages[..1], retry(NEVER)).await;
    settle(
        &engine,
        &group,
        &claimed.messages[2..],
        Outcome::Acknowledged,
    )
    .await;
    assert!(claim(&engine, &group, 10).await.messages.is_empty());
    assert_eq!(
        engine.ready(Arc::from([group.clone()])).await.unwrap(),
        [false]
    );
    let pending = engine.pending(&group, None, 10).await.unwrap();
    let said = pending
        .iter()
        .map(|it| (it.id.as_u64(), it.attempts, it.consumer.is_some()));
    let expected = [
        (1, 1, false),
        (2, 1, true),
        (3, 0, false),
        (5, 0, false),
        (6, 0, false),
    ];
    assert!(said.eq(expected));
    assert!(pending[2].due_in > NEVER * 1000);
    let figures = &streams.stats("s").await.unwrap().groups[0];
    assert_eq!((figures.lag, figures.pending), (0, 5));

    // The other key goes on, and new ones come.
    settle(
        &engine,
        &group,
        &claimed.messages[1..2],
        retry(Duration::ZERO),
    )
    .await;
    streams.publish_batch("s", keyed(["c", "a"])).await.unwrap();
    claimed = claim(&engine, &group, 10).await;
    assert_eq!(numbers(&claimed.messages), [(2, 2), (1, 1)]);
    assert_eq!(claimed.messages[1].message.id.as_u64(), 7);
    let death = Outcome::Dead {
        to: group.stream.dead_letter(),
        provenance: crate::Headers::new(),
    };
    settle(&engine, &group, &claimed.messages[..1], death).await;
    claimed = claim(&engine, &group, 10).await;
    assert_eq!(numbers(&claimed.messages), [(6, 1)]);
    let letters = streams.read("s.dead", None, 10).await.unwrap();
    assert_eq!(letters[0].headers[ORDERING_KEY], "b");

    // A group that does not keep the order has all of them at once.
    let other = key(&streams, "s", "other");
    engine
        .open_group(&other, StartFrom::Earliest)
        .await
        .unwrap();
    let other = some_consumer(&other);
    let all = engine.claim(&other, 10, NEVER.into()).await;
    assert_eq!(all.unwrap().messages.len(), 8);
}

/// Whatever becomes of a claim, its message is the first of its key that is claimed after it: given back, put
/// back, or of a consumer that is gone.
pub async fn a_key_goes_on_with_the_message_that_has_it(engine: Arc<dyn Engine>) {
    let (_, group) = group_with(&engine, ["a", "a"]).await;
    let consumer = some_consumer(&group);
    let short = in_order(Duration::from_millis(10));
    let first = engine.claim(&consumer, 10, short).await.unwrap().messages;
    assert_eq!(numbers(&first), [(1, 1)]);
    let mut again = Claimed::default();
    until(|| async { engine.ready(Arc::from([group.clone()])).await.unwrap()[0] }).await;
    while again.messages.is_empty() {
        again = claim(&engine, &group, 10).await;
    }
    assert_eq!(numbers(&again.messages), [(1, 2)]);
    settle(&engine, &group, &again.messages, Outcome::Released).await;
    let released = claim(&engine, &group, 10).await.messages;
    assert_eq!(numbers(&released), [(1, 2)]);
    settle(&engine, &group, &released, retry(Duration::ZERO)).await;
    let last = claim(&engine, &group, 10).await.messages;
    assert_eq!(numbers(&last), [(1, 3)]);
    settle(&engine, &group, &last, Outcome::Acknowledged).await;
    assert_eq!(
        numbers(&claim(&engine, &group, 10).await.messages),
        [(2, 1)]
    );
}

/// What lies behind a key is passed over once, a bounded part of it by each claim, and comes in its order.
pub async fn a_long_backlog_behind_one_key_hides_no_other(engine: Arc<dyn Engine>) {
    let behind = 2 * MAX_HELD_BACK + 100;
    let keys = std::iter::repeat_n("a", behind).chain(["b", "", "b"]);
    let (streams, group) = group_with(&engine, keys).await;
    let last = behind as u64 + 3;
    let half = MAX_HELD_BACK as u64;
    let mut found = Vec::new();
    for met in [1 + half, 1 + 2 * half, last] {
        let claimed = claim(&engine, &group, 10).await;
        found.extend(claimed.messages);
        let has_more = claimed.next_due == Some(Duration::ZERO);
        assert_eq!(has_more, met < last, "{:?}", claimed.next_due);
        let figures = &streams.stats("s").await.unwrap().groups[0];
        assert_eq!((figures.lag, figures.pending), (last - met, met));
    }
    assert_eq!(numbers(&found), [(1, 1), (last - 2, 1), (last - 1, 1)]);
    let mut waiting = VecDeque::from([found.remove(0)]);
    for number in 2..=20 {
        let done = waiting.pop_front().unwrap();
        settle(&engine, &group, &[done], Outcome::Acknowledged).await;
        waiting.extend(claim(&engine, &group, 10).await.messages);
        assert_eq!(numbers(waiting.make_contiguous()), [(number, 1)]);
    }
}

/// The end of a message wakes a consumer for the next one of its key, without a poll.
pub async fn the_end_of_a_message_wakes_the_next_of_its_key(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", keyed(["a"; 30])).await.unwrap();
    let (recorder, mut seen) = recorder();
    let options = from_start()
        .with_key_order()
        .with_concurrency(4)
        .with_visibility_timeout(NEVER)
        .with_poll_interval(NEVER);
    let left = subscribe(&streams, "s", "g", options.clone(), recorder.clone()).await;
    let right = subscribe(&streams, "s", "g", options, recorder).await;
    assert!(seen.numbers(30).await.into_iter().eq(1..=30));
    left.close().await;
    right.close().await;
}

/// The same if the message dies: its group continues where another consumer waits.
pub async fn the_death_of_a_message_wakes_the_next_of_its_key(engine: Arc<dyn Engine>) {
    let (streams, group) = group_with(&engine, ["a", "a"]).await;
    let claimed = claim(&engine, &group, 1).await.messages;
    assert_eq!(numbers(&claimed), [(1, 1)]);
    let (recorder, mut seen) = recorder();
    let options = from_start()
        .with_key_order()
        .with_visibility_timeout(NEVER)
        .with_poll_interval(NEVER);
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    // It finds the second message held back.
    until(|| async { streams.stats("s").await.unwrap().groups[0].pending == 2 }).await;
    let dead = Outcome::Dead {
        to: group.stream.dead_letter(),
        provenance: Headers::new(),
    };
    settle(&engine, &group, &claimed, dead).await;
    assert_eq!(seen.numbers(1).await, [2]);
    consumer.close().await;
}

/// Messages that are trimmed while they wait leave their keys to those that are kept.
pub async fn trimmed_messages_free_their_keys(engine: Arc<dyn Engine>) {
    let (streams, group) = group_with(&engine, ["a", "a", "b", "a", "b"]).await;
    let claimed = claim(&engine, &group, 10).await.messages;
    assert_eq!(numbers(&claimed), [(1, 1), (3, 1)]);
    settle(&engine, &group, &claimed[..1], retry(NEVER)).await;
    let two = crate::Retention::default()
        .with_max_len(2)
        .with_pending_trimmed();
    streams.set_retention("s", two).await.unwrap();
    let kept = claim(&engine, &group, 10).await.messages;
    assert_eq!(numbers(&kept), [(4, 1)]);
    settle(&engine, &group, &claimed[1..], Outcome::Acknowledged).await;
    let kept = claim(&engine, &group, 10).await.messages;
    assert_eq!(numbers(&kept), [(5, 1)]);
    assert_eq!(streams.stats("s").await.unwrap().groups[0].lost_to_trim, 2);
}

/// A header whose name ends as that of the ordering key does is another header.
pub async fn a_header_with_a_similar_name_is_no_ordering_key(engine: Arc<dyn Engine>) {
    let (streams, group) = group_with(&engine, []).await;
    let similar = |name: &str| NewMessage::new("1").with_header(name, "a");
    let names = [
        "a\"ordering-key",
        ",\"ordering-key",
        "ordering-key\"",
        "Ordering-Key",
    ];
    let messages = names.iter().flat_map(|name| [similar(name), similar(name)]);
    streams
        .publish_batch("s", messages.collect())
        .await
        .unwrap();
    assert_eq!(claim(&engine, &group, 10).await.messages.len(), 8);
}

/// A message that is put back for the longest time there is does not come again when its claim would have expired.
pub async fn the_longest_delay_outlasts_the_claim_before_it(engine: Arc<dyn Engine>) {
    let (_, group) = group_with(&engine, ["a", "b"]).await;
    let consumer = some_consumer(&group);
    let short = in_order(Duration::from_millis(10));
    let claimed = engine.claim(&consumer, 10, short).await.unwrap().messages;
    assert_eq!(numbers(&claimed), [(1, 1), (2, 1)]);
    settle(&engine, &group, &claimed[..1], retry(Duration::MAX)).await;
    let mut again = Vec::new();
    while again.is_empty() {
        until(|| async { engine.ready(Arc::from([group.clone()])).await.unwrap()[0] }).await;
        again = claim(&engine, &group, 10).await.messages;
    }
    assert_eq!(numbers(&again), [(2, 2)]);
}

/// A group that moves forgets who has which key.
pub async fn a_group_that_seeks_begins_its_keys_anew(engine: Arc<dyn Engine>) {
    let (streams, group) = group_with(&engine, ["a", "a", "a"]).await;
    assert_eq!(claim(&engine, &group, 10).await.messages.len(), 1);
    let second = StartFrom::After(crate::MessageId::from_u64(1));
    streams.seek("s", "g", second).await.unwrap();
    let claimed = claim(&engine, &group, 10).await.messages;
    assert_eq!(numbers(&claimed), [(2, 1)]);
    streams.publish_batch("s", numbered(1)).await.unwrap();
    assert_eq!(claim(&engine, &group, 10).await.messages.len(), 1);
}
