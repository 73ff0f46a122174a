//! Streams: what is pushed arrives, once and in order, wherever a stream begins.

use tidings_notify::{MemoryStore, Notifier, Since};

use crate::support::{draft, numbers, user};

#[tokio::test]
async fn a_pushed_event_reaches_a_local_stream_with_its_type_and_user() {
    let notifier = Notifier::builder(MemoryStore::new()).build();
    let mut stream = notifier.subscribe(user("ann"), Since::Now).await.unwrap();
    let pushed = notifier.push(draft(1)).await.unwrap();
    assert_eq!(numbers(&mut stream, 1).await, [1]);
    assert_eq!(stream.cursor(), pushed.id);
}
