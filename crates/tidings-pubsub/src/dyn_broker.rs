use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Broker, Error, Options, Publisher, Subscriber, Subscription, Topic};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any [`Broker`], behind one type: for programs that choose theirs at run time.
///
/// Clones are the same broker.
#[derive(Clone)]
pub struct DynBroker(Arc<dyn ErasedBroker>);

impl DynBroker {
    /// Hides the type of a broker.
    pub fn new(broker: impl Broker) -> Self {
        Self(Arc::new(broker))
    }
}

impl fmt::Debug for DynBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynBroker")
    }
}

impl Publisher for DynBroker {
    async fn publish(&self, topic: &Topic, payload: impl Into<Bytes> + Send) -> Result<(), Error> {
        self.0.publish_boxed(topic, payload.into()).await
    }
}

impl Subscriber for DynBroker {
    async fn subscribe(
        &self,
        topics: impl IntoIterator<Item = Topic, IntoIter: Send> + Send,
        options: Options,
    ) -> Result<Subscription, Error> {
        let topics = topics.into_iter().collect();
        self.0.subscribe_boxed(topics, options).await
    }
}

impl Broker for DynBroker {
    async fn close(&self) {
        self.0.close_boxed().await;
    }
}

trait ErasedBroker: Send + Sync {
    fn publish_boxed<'a>(
        &'a self,
        topic: &'a Topic,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<(), Error>>;

    fn subscribe_boxed(
        &self,
        topics: Vec<Topic>,
        options: Options,
    ) -> BoxFuture<'_, Result<Subscription, Error>>;

    fn close_boxed(&self) -> BoxFuture<'_, ()>;
}

impl<B: Broker> ErasedBroker for B {
    fn publish_boxed<'a>(
        &'a self,
        topic: &'a Topic,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.publish(topic, payload))
    }

    fn subscribe_boxed(
        &self,
        topics: Vec<Topic>,
        options: Options,
    ) -> BoxFuture<'_, Result<Subscription, Error>> {
        Box::pin(self.subscribe(topics, options))
    }

    fn close_boxed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }
}
