//! The client library, with a connection that publishes and one that listens.

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value, cmd};
use tidings_pubsub::Topic;
use tokio::sync::mpsc;

use crate::memory::Channels;
use crate::{PAYLOAD, Receiver};

pub(crate) struct Raw {
    client: Client,
    publishing: MultiplexedConnection,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let client = Client::open(format!("{url}?protocol=resp3")).unwrap();
        Self {
            publishing: client.get_multiplexed_async_connection().await.unwrap(),
            client,
        }
    }
}

impl crate::Raw for Raw {
    type Receiver = RawReceiver;

    async fn publish(&self, topic: &Topic) {
        cmd("PUBLISH")
            .arg(topic.as_str())
            .arg(&PAYLOAD[..])
            .exec_async(&mut self.publishing.clone())
            .await
            .unwrap();
    }

    async fn subscribe(&self, topic: &Topic, receivers: usize) -> Vec<RawReceiver> {
        let (channels, receivers) = Channels::new(receivers);
        let push = move |PushInfo { kind, mut data }: PushInfo| {
            if kind == PushKind::Message
                && let Some(Value::BulkString(payload)) = data.pop()
            {
                channels.send(&payload.into());
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let config = AsyncConnectionConfig::new().set_push_sender(push);
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.unwrap();
        connection.subscribe(topic.as_str()).await.unwrap();
        let receivers = receivers.into_iter().map(|receiver| RawReceiver {
            receiver,
            _connection: connection.clone(),
        });
        receivers.collect()
    }
}

pub(crate) struct RawReceiver {
    receiver: mpsc::Receiver<Bytes>,
    _connection: MultiplexedConnection,
}

impl Receiver for RawReceiver {
    async fn recv(&mut self) {
        self.receiver.recv().await.unwrap();
    }
}
