//! What arrived at receivers, and when.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_bench::Latencies;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::server::read_message;

/// The ids of events, and when they arrived.
#[derive(Default)]
pub(crate) struct Arrivals {
    received: Mutex<Vec<(String, Instant)>>,
    more: tokio::sync::Notify,
    at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
}

impl Arrivals {
    pub(crate) fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    pub(crate) fn note(&self, id: String) {
        self.received.lock().unwrap().push((id, Instant::now()));
        self.more.notify_waiters();
    }

    pub(crate) async fn wait_for(&self, count: usize) {
        while self.count() < count {
            let _looked_again =
                tokio::time::timeout(Duration::from_millis(5), self.more.notified()).await;
        }
    }

    /// The numbers of the events, in order of arrival.
    pub(crate) fn order(&self) -> Vec<usize> {
        let received = self.received.lock().unwrap();
        let seq = |(id, _): &(String, Instant)| id.rsplit_once('-').unwrap().1.parse().unwrap();
        received.iter().map(seq).collect()
    }

    /// The time from the post to the arrival, of those that are in `accepted`.
    pub(crate) fn latencies(&self, accepted: &HashMap<String, Instant>) -> Latencies {
        let received = self.received.lock().unwrap();
        let times = received
            .iter()
            .filter_map(|(id, at)| Some(at.duration_since(*accepted.get(id)?)));
        times.collect()
    }
}

/// Starts a receiver that replies 204 after a delay; returns its URL.
pub(crate) async fn receive(arrivals: &Arc<Arrivals>, delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let arrivals = Arc::clone(arrivals);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, Arc::clone(&arrivals), delay));
        }
    });
    url
}

async fn serve(mut socket: TcpStream, arrivals: Arc<Arrivals>, delay: Duration) {
    let mut buffer = Vec::new();
    while let Some(request) = read_message(&mut socket, &mut buffer).await {
        let text = String::from_utf8_lossy(&request).into_owned();
        let id = text.split("webhook-id: ").nth(1).unwrap();
        let id = id.lines().next().unwrap().to_owned();
        let at_once = arrivals.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        arrivals.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        arrivals.note(id);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        arrivals.at_once.fetch_sub(1, Ordering::Relaxed);
        let response = b"HTTP/1.1 204 No Content\r\n\r\n";
        if socket.write_all(response).await.is_err() {
            return;
        }
    }
}
