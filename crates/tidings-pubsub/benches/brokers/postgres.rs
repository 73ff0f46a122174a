//! The client library, with a connection that publishes and one that listens. The payload is text,
//! which needs no encoding.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use tidings_pubsub::Topic;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};
use tokio_util::task::AbortOnDropHandle;

use crate::memory::Channels;
use crate::{PAYLOAD, Receiver};

pub(crate) struct Raw {
    url: String,
    publishing: Client,
    notify: Statement,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let (publishing, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let notify = publishing.prepare("SELECT pg_notify($1, $2)");
        Self {
            url: url.to_owned(),
            notify: notify.await.unwrap(),
            publishing,
        }
    }
}

impl crate::Raw for Raw {
    type Receiver = RawReceiver;

    async fn publish(&self, topic: &Topic) {
        let payload = str::from_utf8(&PAYLOAD).unwrap();
        self.publishing
            .execute(&self.notify, &[&topic.as_str(), &payload])
            .await
            .unwrap();
    }

    async fn subscribe(&self, topic: &Topic, receivers: usize) -> Vec<RawReceiver> {
        let connecting = tokio_postgres::connect(&self.url, NoTls);
        let (client, mut connection) = connecting.await.unwrap();
        let (channels, receivers) = Channels::new(receivers);
        let listening = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(it) = message.unwrap() {
                    channels.send(&Bytes::copy_from_slice(it.payload().as_bytes()));
                }
            }
        });
        let listen = format!("LISTEN \"{topic}\"");
        client.batch_execute(&listen).await.unwrap();
        let listening = Arc::new((AbortOnDropHandle::new(listening), client));
        let receivers = receivers.into_iter().map(|receiver| RawReceiver {
            receiver,
            _listening: Arc::clone(&listening),
        });
        receivers.collect()
    }
}

pub(crate) struct RawReceiver {
    receiver: mpsc::Receiver<Bytes>,
    _listening: Arc<(AbortOnDropHandle<()>, Client)>,
}

impl Receiver for RawReceiver {
    async fn recv(&mut self) {
        self.receiver.recv().await.unwrap();
    }
}
