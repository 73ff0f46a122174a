//! Waking waiting consumers when a stream has something for them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::StreamName;

/// The wake-ups of one engine: which consumers wait for which stream. Clones share them.
///
/// A wake-up is only a hint. A consumer that misses one finds its messages at the next poll, so an
/// engine may wake too often and must not rely on any wake-up arriving.
#[derive(Debug, Clone, Default)]
pub struct Wakes {
    streams: Arc<Mutex<HashMap<StreamName, watch::Sender<()>>>>,
}

impl Wakes {
    /// Wakes the consumers in this process that wait for a stream.
    pub fn wake(&self, stream: &StreamName) {
        if let Some(sender) = self.streams.lock().get(stream) {
            sender.send_replace(());
        }
    }

    /// Wakes all waiting consumers in this process, because wake-ups may have been missed.
    pub fn wake_all(&self) {
        for sender in self.streams.lock().values() {
            sender.send_replace(());
        }
    }

    /// Registers for the wake-ups of a stream, from now on.
    pub(crate) fn subscribe(&self, stream: &StreamName) -> WakeReceiver {
        let receiver = self
            .streams
            .lock()
            .entry(stream.clone())
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        WakeReceiver {
            wakes: self.clone(),
            stream: stream.clone(),
            receiver,
        }
    }
}

/// What one consumer waits with.
#[derive(Debug)]
pub(crate) struct WakeReceiver {
    wakes: Wakes,
    stream: StreamName,
    receiver: watch::Receiver<()>,
}

impl WakeReceiver {
    /// Takes note of every wake-up so far. Called before looking for work: a wake-up that comes
    /// during the look, too late for it, then ends the wait that follows.
    pub(crate) fn mark_seen(&mut self) {
        self.receiver.mark_unchanged();
    }

    /// Waits for a wake-up later than [`mark_seen`](Self::mark_seen).
    pub(crate) async fn woken(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives as long as its receivers do.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for WakeReceiver {
    fn drop(&mut self) {
        let mut streams = self.wakes.streams.lock();
        // This receiver still counts.
        if streams
            .get(&self.stream)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            streams.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_during_the_look_is_not_lost() {
        let wakes = Wakes::default();
        let stream = StreamName::new("app", "default", "s").unwrap();
        let mut receiver = wakes.subscribe(&stream);
        wakes.wake(&stream);
        receiver.mark_seen();
        wakes.wake(&stream);
        receiver.woken().await;
        let quiet = tokio::time::timeout(std::time::Duration::from_secs(60), receiver.woken());
        assert!(quiet.await.is_err());
    }

    #[test]
    fn a_stream_without_receivers_costs_nothing() {
        let wakes = Wakes::default();
        let stream = StreamName::new("app", "default", "s").unwrap();
        let (first, second) = (wakes.subscribe(&stream), wakes.subscribe(&stream));
        drop(first);
        assert_eq!(wakes.streams.lock().len(), 1);
        drop(second);
        assert!(wakes.streams.lock().is_empty());
    }
}
