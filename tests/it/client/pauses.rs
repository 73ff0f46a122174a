//! An endpoint that asks for no requests for a time.

use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn a_pause_shows_its_end_and_ends_by_hand_also_for_the_message_that_it_was_asked_of() {
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE).with_header("retry-after", "3600");
    let receiver = receiver(Script::sequence([busy], Reply::ok())).await;
    let (client, mut errors) = started(Client::builder(receiver.url("/")).retry(at_once(2)));
    let began = Instant::now();
    client.notify("is put off").unwrap();
    while client.status().blocked_until.is_none() {
        yield_now().await;
    }
    let until = client.status().blocked_until.unwrap();
    assert!(until >= began + HOUR && until <= Instant::now() + HOUR + HOUR / 10);
    client.notify("waits").unwrap();
    assert_eq!(client.status().queued, 2);
    client.unblock();
    assert_eq!(client.status().blocked_until, None);
    client.stop().await;
    assert!(errors.try_recv().is_err());
    assert_eq!(receiver.requests().len(), 3);
}
