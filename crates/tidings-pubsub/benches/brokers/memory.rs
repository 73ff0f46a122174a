//! A bounded channel for each receiver, as Tokio has it, and a list of them for each topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidings_pubsub::Topic;
use tokio::sync::mpsc;

use crate::{FAN_OUT, PAYLOAD, Receiver};

pub(crate) struct Raw {
    topics: Mutex<HashMap<Topic, Channels>>,
}

/// The senders of one topic.
#[derive(Clone)]
pub(crate) struct Channels(Arc<[mpsc::Sender<Bytes>]>);

impl Channels {
    pub(crate) fn new(receivers: usize) -> (Self, Vec<mpsc::Receiver<Bytes>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..receivers).map(|_| mpsc::channel(FAN_OUT)).unzip();
        (Self(senders.into()), receivers)
    }

    pub(crate) fn send(&self, payload: &Bytes) {
        for sender in &*self.0 {
            // A mailbox that is full or gone misses it.
            let _missed = sender.try_send(payload.clone());
        }
    }
}

impl Raw {
    pub(crate) fn new() -> Self {
        Self {
            topics: Mutex::default(),
        }
    }
}

impl crate::Raw for Raw {
    type Receiver = mpsc::Receiver<Bytes>;

    async fn publish(&self, topic: &Topic) {
        let channels = self.topics.lock().unwrap().get(topic).cloned();
        if let Some(channels) = channels {
            channels.send(&Bytes::from_static(&PAYLOAD));
        }
    }

    async fn subscribe(&self, topic: &Topic, receivers: usize) -> Vec<Self::Receiver> {
        let (channels, receivers) = Channels::new(receivers);
        self.topics.lock().unwrap().insert(topic.clone(), channels);
        receivers
    }
}

impl Receiver for mpsc::Receiver<Bytes> {
    async fn recv(&mut self) {
        mpsc::Receiver::recv(self).await.unwrap();
    }
}
