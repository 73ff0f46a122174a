//! How much one claim and one page read: what they have in memory at a time does not grow with what is there.

use std::sync::Arc;

use tidings_stream::engine::{
    ClaimOptions, ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement,
};
use tidings_stream::{MessageId, NewMessage, StartFrom};

use crate::database::{NEVER, key};
use crate::place::{Place, open};

/// Together three times as much as a claim or a page reads.
const MESSAGES: u64 = 200;

/// The messages of a page or a claim are fewer than that.
const TOO_MANY: usize = 100;

#[tokio::test]
async fn headers_count_towards_what_one_call_reads_on_sqlite() {
    let place = Place::sqlite();
    headers_count(open(place.text()).await).await;
}

#[tokio::test]
async fn headers_count_towards_what_one_call_reads_on_postgres() {
    let place = Place::postgres().await;
    headers_count(open(place.text()).await).await;
}

#[tokio::test]
async fn headers_count_towards_what_one_call_reads_on_redis() {
    let place = Place::redis();
    headers_count(open(place.text()).await).await;
}

/// Claims until there is no more.
async fn claim_all(engine: &dyn Engine, group: &GroupKey, options: ClaimOptions) -> Vec<Receipt> {
    let consumer = ConsumerKey {
        group: group.clone(),
        consumer: "one".into(),
    };
    let mut receipts = Vec::new();
    while (receipts.len() as u64) < MESSAGES {
        let claimed = engine.claim(&consumer, 1000, options).await.unwrap();
        let claimed = claimed.messages;
        let count = claimed.len();
        assert!((1..TOO_MANY).contains(&count), "a claim of {count}");
        receipts.extend(claimed.iter().map(|it| it.receipt));
    }
    receipts
}

/// Messages that are nothing but headers are read in parts, and all of them.
async fn headers_count(engine: Arc<dyn Engine>) {
    let stream = key("s", "g").stream;
    let message = |number: u64| {
        let large = NewMessage::new("").with_header("large", "x".repeat(60 << 10));
        large.with_ordering_key(number.to_string())
    };
    let messages = (1..=MESSAGES).map(message).collect();
    engine.append(&stream, messages, None).await.unwrap();
    let (mut read, mut after) = (0, None);
    while let Some(last) = {
        let page = engine.read(&stream, after, 1000).await.unwrap();
        assert!(page.len() < TOO_MANY, "a page of {}", page.len());
        read += page.len() as u64;
        page.last().map(|it| it.id)
    } {
        after = Some(last);
    }
    assert_eq!(
        (read, after),
        (MESSAGES, Some(MessageId::from_u64(MESSAGES)))
    );
    for in_key_order in [false, true] {
        let options = ClaimOptions {
            in_key_order,
            ..NEVER.into()
        };
        let group = key("s", if in_key_order { "ordered" } else { "g" });
        engine
            .open_group(&group, StartFrom::Earliest)
            .await
            .unwrap();
        // New messages, and the same once more.
        for _ in 0..2 {
            let receipts = claim_all(&*engine, &group, options).await;
            let released = receipts.into_iter().map(|receipt| Settlement {
                receipt,
                outcome: Outcome::Released,
            });
            let obeyed = engine.settle(&group, released.collect()).await.unwrap();
            assert!(obeyed.into_iter().all(|it| it));
        }
    }
}
