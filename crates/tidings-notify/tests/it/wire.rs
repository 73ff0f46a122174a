//! What goes over the wire, and a subscription as a stream.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::FusedStream;
use futures_util::{FutureExt, StreamExt};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use serde_json::{Value, json};
use tidings_notify::telemetry;
use tidings_notify::wire::{
    Bye, Control, EventNaming, Expiring, WebSocketFrame, server_sent_events,
};
use tidings_notify::{
    Changed, Epoch, EventId, Gap, GapReason, InboxChange, Item, MemoryStore, Since,
};

use crate::support::{ann, numbers, push_numbers, without_sweep};

/// The fields of the blocks of a chunk, each as it was written.
fn blocks(chunk: &str) -> Vec<Vec<(&str, &str)>> {
    let blocks = chunk.split_terminator("\n\n").map(str::lines);
    blocks
        .map(|lines| lines.filter_map(|line| line.split_once(": ")).collect())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_hello_and_ends_with_bye() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..2).await;
    let stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let ping = Duration::from_secs(20);
    let mut body = pin!(server_sent_events(stream, EventNaming::Message, ping));
    let mut next = async || body.next().await.map(Result::unwrap);

    let hello = next().await.unwrap();
    assert_eq!(blocks(&hello).len(), 1, "{hello}");
    let fields = &blocks(&hello)[0];
    assert_eq!(fields[0], ("retry", "2000"));
    assert_eq!(fields[1], ("event", "tidings.hello"));
    let origin = EventId::new(events[0].id.epoch, 0).to_string();
    assert_eq!(fields[2], ("id", &*origin));
    let document: Value = serde_json::from_str(fields[3].1).unwrap();
    let expected = json!({
        "user_id": "ann", "cursor": origin, "unread": 2, "unseen": 2, "ping_interval_ms": 20_000
    });
    assert_eq!(document, expected);

    let backlog = next().await.unwrap();
    let names: Vec<_> = blocks(&backlog)
        .iter()
        .map(|block| block[0].1.to_owned())
        .collect();
    let ids: Vec<_> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(names, [&*ids[0], &*ids[1], "tidings.caught_up"]);
    // Asking for the next chunk is what says that this one was sent.
    assert_eq!(next().await.unwrap(), ": ping\n");
    notifier.close().await.unwrap();
    let bye = next().await.unwrap();
    assert_eq!(blocks(&bye)[0][1], ("event", "tidings.bye"));
    assert_eq!(next().await, None);
    let head = notifier.store().head(&ann()).await.unwrap();
    assert_eq!(head.delivered_seq, 2);
}

/// Those before it are undelivered.
#[tokio::test(start_paused = true)]
async fn regression_a_stream_that_has_given_no_event_marks_none_as_sent() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    push_numbers(&notifier, 0..2).await;
    let stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let ping = Duration::from_secs(20);
    let mut body = pin!(server_sent_events(stream, EventNaming::Message, ping));
    let mut next = async || body.next().await.map(Result::unwrap);
    while next().await.unwrap() != ": ping\n" {}
    assert_eq!(next().await.unwrap(), ": ping\n");
    notifier.close().await.unwrap();
    let head = notifier.store().head(&ann()).await.unwrap();
    assert_eq!(head.delivered_seq, 0);
}

#[test]
fn every_item_has_a_frame_of_its_own_name() {
    let id = |seq| EventId::new(Epoch::from_u64(255), seq);
    let text = |item: &Item| -> Value {
        let text = WebSocketFrame::text_of(item).unwrap().unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let gap = Gap {
        from: None,
        to: id(4),
        reason: GapReason::Invalid,
    };
    assert_eq!(
        text(&Item::Gap(gap)),
        json!({ "event": "gap", "from": null, "to": "00000000000000ff-4", "reason": "invalid" })
    );
    assert_eq!(
        text(&Item::CaughtUp { cursor: id(4) }),
        json!({ "event": "caught_up", "cursor": "00000000000000ff-4" })
    );
    let what = Changed::SeenUpTo(id(3));
    let change = InboxChange {
        what,
        unread: 2,
        unseen: 1,
        cursor: id(4),
    };
    assert_eq!(
        text(&Item::Changed(change)),
        json!({
            "event": "changed", "change": "seen", "up_to": "00000000000000ff-3",
            "unread": 2, "unseen": 1, "cursor": "00000000000000ff-4"
        })
    );
    let frame = |control: Control<'static>| -> Value {
        let text = WebSocketFrame::from(control).to_text().unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let at = "2026-11-21T10:00:00Z";
    assert_eq!(
        frame(Control::Expiring(Expiring::new(at.parse().unwrap()))),
        json!({ "event": "expiring", "expires_at": at })
    );
    let bye = Bye::expired();
    assert_eq!(
        frame(Control::Bye(bye)),
        json!({
            "event": "bye", "code": 4003, "reason": "the token or key has expired",
            "reconnect_after_ms": 1000
        })
    );
}

#[tokio::test]
async fn a_subscription_is_a_fused_stream_and_dropped_futures_take_nothing() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    assert!(matches!(
        StreamExt::next(&mut stream).await,
        Some(Item::CaughtUp { .. })
    ));
    assert_eq!(StreamExt::next(&mut stream).now_or_never(), None);
    let events = push_numbers(&notifier, 0..2).await;
    // Both ways of reading are the same stream.
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    let given = StreamExt::next(&mut stream).await;
    assert!(matches!(given, Some(Item::Event(event)) if *event == events[1]));
    assert!(!stream.is_terminated());
    notifier.close().await.unwrap();
    assert_eq!(StreamExt::next(&mut stream).await, None);
    assert!(stream.is_terminated());
    assert_eq!(StreamExt::next(&mut stream).await, None);
}

#[tokio::test]
async fn a_stream_counts_its_gaps() {
    let notifier = without_sweep(MemoryStore::new().with_max_events_per_user(2))
        .build()
        .unwrap();
    let events = push_numbers(&notifier, 0..5).await;
    let since = Since::After(events[0].id);
    let mut stream = notifier.subscribe(ann(), since).await.unwrap();
    assert_eq!(stream.gaps(), 0);
    assert!(matches!(stream.next().await, Ok(Item::Gap(_))));
    assert_eq!(numbers(&mut stream, 1).await, [3]);
    assert_eq!(stream.gaps(), 1);
}

#[test]
fn figures_go_to_the_recorder_of_the_program() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let notifier = without_sweep(MemoryStore::new()).build().unwrap();
            let garbage = Since::Cursor("?".to_owned());
            let mut stream = notifier.subscribe(ann(), garbage).await.unwrap();
            let other = notifier.subscribe(ann(), Since::Now).await.unwrap();
            push_numbers(&notifier, 0..3).await;
            numbers(&mut stream, 3).await;
            drop(other);
        });
    });
    let figures: BTreeMap<_, _> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| (key.key().name().to_owned(), value))
        .collect();
    let (three, one) = (DebugValue::Counter(3), DebugValue::Counter(1));
    let figure = |name: &str| figures.get(name);
    assert_eq!(figure(telemetry::NOTIFICATION_DELIVERED), Some(&three));
    assert_eq!(figure(telemetry::SUBSCRIPTION_GAPS), Some(&one));
    // Both streams are closed by now.
    let none = DebugValue::Gauge(0.0.into());
    assert_eq!(figure(telemetry::SUBSCRIPTION_ACTIVE), Some(&none));
}
