//! Consumers that wait for wake-ups find everything, also after the connection that listens has broken.

use tidings_stream::{NewMessage, Streams};
use tidings_test_support::{Breakable, Outage, Server};

use super::{Open, streams};
use crate::database::{from_start, next, recorder};

/// The references' listeners die with their connections, and waiting consumers then poll for ever.
/// `kill` ends the connection on which `here` listens.
pub(crate) async fn a_killed_listener_comes_back(
    here: &Streams,
    there: &Streams,
    kill: impl AsyncFn(),
) {
    let (recorder, mut seen) = recorder();
    let consumer = here
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    for _ in 0..5 {
        kill().await;
        // Without a listener, or with the one that is back: it is found either way, without polling.
        for _ in 0..3 {
            let id = there.publish("s", NewMessage::new("")).await.unwrap();
            assert_eq!(next(&mut seen).await.unwrap().id, id);
        }
    }
    consumer.close().await;
}

/// A connection that is silent for ever is found out by its listener.
pub(crate) async fn a_listener_whose_connection_falls_silent_comes_back<S: Server>(
    outage: &mut Breakable<S>,
    open: Open,
) {
    let here = streams(open, outage.url()).await;
    let there = streams(open, &outage.direct_url()).await;
    let (recorder, mut seen) = recorder();
    let consumer = here
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    outage.proxy().freeze();
    let id = there.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().id, id);
    consumer.close().await;
}
