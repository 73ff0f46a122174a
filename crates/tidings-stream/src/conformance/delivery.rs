use std::collections::BTreeSet;
use std::sync::Arc;

use super::support::{
    NEVER, contents, from_start, number, numbered, recorder, streams, subscribe, until,
};
use crate::engine::Engine;
use crate::{
    Error, HandlerError, Headers, MAX_BATCH_BYTES, MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Message,
    MessageId, NewMessage, Redrive, dead_letter,
};

/// Five messages arrive, first attempts all.
pub async fn five_messages_make_the_round_trip(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", from_start(), recorder).await;
    for message in numbered(5) {
        streams.publish("s", message).await.unwrap();
    }
    let messages = seen.take(5).await;
    assert_eq!(
        messages.iter().map(number).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(messages.iter().all(|message| message.attempt == 1));
    // By the clock of the store, which may be another machine's.
    let stored = streams.read("s", None, 5).await.unwrap();
    let times = |messages: &[Message]| messages.iter().map(|it| it.created_at).collect::<Vec<_>>();
    assert_eq!(times(&messages), times(&stored));
    assert!(times(&messages).is_sorted());
    assert!(
        messages
            .iter()
            .all(|m| m.stream == streams.name("s").unwrap())
    );
    consumer.close().await;
    assert!(seen.rest().await.is_empty());
}

/// Any bytes and any text come out as they went in.
pub async fn payloads_and_headers_arrive_as_they_were_sent(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let mut sent = vec![
        NewMessage::new(""),
        NewMessage::new(&b"\0"[..]),
        NewMessage::new((0..=255).collect::<Vec<u8>>()),
        NewMessage::new(vec![7; 1 << 20]),
    ];
    for (key, value) in [
        ("", ""),
        ("payload", "not the payload"),
        ("ключ", "значение 🎉"),
        ("nul\0", "\0"),
        ("quotes", "\"'\\\n\r\u{2028}"),
        ("long", &"x".repeat(8 << 10)),
    ] {
        sent.push(NewMessage::new("h").with_header(key, value));
    }
    let many: Headers = (0..100).map(|i| (i.to_string(), "v".to_owned())).collect();
    sent.push(NewMessage::new("many").with_headers(many));
    streams.publish_batch("s", sent.clone()).await.unwrap();

    for (sent, got) in sent.iter().zip(contents(&streams, "s").await) {
        assert_eq!(sent.payload, got.payload);
        assert_eq!(sent.headers, got.headers);
    }
}

/// The largest message passes, one byte more is refused by field, and nothing of it is kept.
pub async fn what_is_too_large_is_refused(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let largest = NewMessage::new(vec![1; MAX_PAYLOAD_BYTES])
        .with_header("k", "v".repeat(MAX_HEADER_BYTES - 1));
    streams.publish("s", largest).await.unwrap();
    let payload = NewMessage::new(vec![1; MAX_PAYLOAD_BYTES + 1]);
    let headers = NewMessage::new("").with_header("k", "v".repeat(MAX_HEADER_BYTES));
    for (message, wrong) in [(payload, "payload"), (headers, "headers")] {
        let refused = streams.publish("s", message).await.unwrap_err();
        assert!(matches!(refused, Error::TooLarge { field, .. } if field == wrong));
    }
    let piece = NewMessage::new(vec![1; MAX_PAYLOAD_BYTES]);
    let batch = vec![piece; MAX_BATCH_BYTES / MAX_PAYLOAD_BYTES + 1];
    let refused = streams.publish_batch("s", batch).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { field: "batch", .. }));
    assert_eq!(streams.stats("s").await.unwrap().messages, 1);
}

/// Headers of dead letters say where a redrive publishes, so only a death may add them: a publisher that sends
/// them is refused, whatever stream it publishes to.
pub async fn regression_a_publisher_cannot_steer_a_redrive(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let forged = || NewMessage::new("").with_header(dead_letter::STREAM, "app.default.private");
    let other = NewMessage::new("").with_header("x-dlq-later", "");
    for stream in ["s", "s.dead"] {
        for batch in [
            vec![forged()],
            vec![NewMessage::new(""), forged()],
            vec![other.clone()],
        ] {
            let refused = streams.publish_batch(stream, batch).await.unwrap_err();
            let is_about_headers = matches!(
                refused,
                Error::InvalidOption {
                    field: "headers",
                    ..
                }
            );
            assert!(is_about_headers, "{refused:?}");
        }
    }
    assert!(streams.list().await.unwrap().is_empty());
    // Others with the same start are the application's own.
    let own = NewMessage::new("")
        .with_header("x-dlq", "")
        .with_header("X-DLQ-stream", "s");
    streams.publish("s", own).await.unwrap();
}

/// Headers of the largest size, all of them characters that a store may have to escape, come with the
/// message, with its dead letter, which has more, and with the message that is brought back.
pub async fn the_largest_headers_outlive_death_and_return(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let headers = Headers::from([(
        "\u{1}".into(),
        "\u{1}\"\\\0".repeat(MAX_HEADER_BYTES / 4 - 1),
    )]);
    let published = NewMessage::new("").with_headers(headers.clone());
    streams.publish("s", published).await.unwrap();
    let (recorder, mut seen) = recorder();
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            recorder.note(message).await;
            Err(HandlerError::skip_retry("x".repeat(2000)))
        }
    };
    let consumer = subscribe(&streams, "s", "g", from_start(), handler).await;
    assert_eq!(seen.next().await.headers, headers);
    until(|| async { streams.stats("s.dead").await.unwrap().messages == 1 }).await;
    let letter = streams.read("s.dead", None, 1).await.unwrap().remove(0);
    assert_eq!(NewMessage::revived(&letter).headers, headers);
    assert_eq!(letter.headers[dead_letter::ERROR].len(), 1024);
    let redriven = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    assert_eq!((redriven.moved, redriven.skipped), (1, 0));
    let returned = seen.next().await;
    assert_eq!((returned.id.as_u64(), returned.headers), (2, headers));
    consumer.close().await;
}

/// Large messages arrive at once, however an engine divides them into claims.
pub async fn large_messages_do_not_wait_for_a_poll(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, mut seen) = recorder();
    let options = from_start().with_concurrency(16).with_poll_interval(NEVER);
    let batch = vec![NewMessage::new(vec![7; 3 << 20]); 10];
    streams.publish_batch("s", batch).await.unwrap();
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    let ids: BTreeSet<MessageId> = seen.take(10).await.iter().map(|m| m.id).collect();
    assert_eq!(ids.len(), 10);
    consumer.close().await;
}

/// Ids count 1, 2, 3 … in every stream by itself.
pub async fn ids_are_dense_and_a_batch_is_contiguous(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let id = MessageId::from_u64;
    assert_eq!(
        streams.publish("a", NewMessage::new("")).await.unwrap(),
        id(1)
    );
    let batch = streams.publish_batch("a", numbered(3)).await.unwrap();
    assert_eq!(batch, [id(2), id(3), id(4)]);
    assert_eq!(
        streams.publish("b", NewMessage::new("")).await.unwrap(),
        id(1)
    );
    assert!(
        streams
            .publish_batch("a", Vec::new())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        streams.publish("a", NewMessage::new("")).await.unwrap(),
        id(5)
    );
}

/// A batch with a message that is refused leaves nothing behind. What an engine refuses is tested with
/// each: it takes a full disk.
pub async fn a_batch_is_published_whole_or_not_at_all(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let mut batch = numbered(3);
    batch.push(NewMessage::new(vec![0; MAX_PAYLOAD_BYTES + 1]));
    streams.publish_batch("s", batch).await.unwrap_err();
    assert_eq!(streams.stats("s").await.unwrap().messages, 0);
    assert_eq!(
        streams.publish_batch("s", numbered(3)).await.unwrap().len(),
        3
    );
}

/// Case, dots, blanks, letters of any script and length make streams and groups of their own.
pub async fn names_that_look_alike_are_different_streams(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (long, longer) = ("x".repeat(200), "x".repeat(201));
    let names = [
        "orders",
        "Orders",
        "ORDERS",
        "orders.",
        "or.ders",
        "or-ders",
        "or_ders",
        "or ders",
        "órders",
        "orders%",
        "'orders'",
        "\"orders\"",
        "orders;--",
        &long,
        &longer,
    ];
    for name in names {
        streams
            .publish(name, NewMessage::new(name.to_owned()))
            .await
            .unwrap();
    }
    for name in names {
        let (recorder, mut seen) = recorder();
        let consumer = subscribe(&streams, name, name, from_start(), recorder).await;
        assert_eq!(seen.next().await.payload, name);
        consumer.close().await;
        assert!(seen.rest().await.is_empty());
    }
    for (stream, group) in [("", "g"), ("s", ""), ("a\0b", "g"), ("s", "line\n")] {
        let (recorder, _) = recorder();
        let refused = streams
            .subscribe(stream, group, from_start(), recorder)
            .await;
        assert!(matches!(refused.unwrap_err(), Error::InvalidName { .. }));
    }
}

/// One worker sees new messages in the order in which they were published.
pub async fn first_deliveries_come_in_the_order_of_their_ids(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(100)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", from_start(), recorder).await;
    for message in numbered(200).split_off(100) {
        streams.publish("s", message).await.unwrap();
    }
    assert_eq!(seen.numbers(200).await, (1..=200).collect::<Vec<_>>());
    consumer.close().await;
}

/// Four publishers and two consumers with four handlers each: 200 messages, 200 deliveries.
pub async fn many_publishers_and_workers_deliver_each_message_once(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, mut seen) = recorder();
    let options = from_start().with_concurrency(4);
    let first = subscribe(&streams, "s", "g", options.clone(), recorder.clone()).await;
    let second = subscribe(&streams, "s", "g", options, recorder).await;
    let publisher = |from: usize| {
        let streams = streams.clone();
        async move {
            for message in numbered(200).drain(from * 50..(from + 1) * 50) {
                streams.publish("s", message).await.unwrap();
            }
        }
    };
    tokio::join!(publisher(0), publisher(1), publisher(2), publisher(3));
    let numbers: BTreeSet<u64> = seen.numbers(200).await.into_iter().collect();
    assert_eq!(numbers.len(), 200);
    tokio::join!(first.close(), second.close());
    assert!(seen.rest().await.is_empty());
}
