//! A broker that is written outside of the crate, and that delivers late: what is sent, asked for
//! and given up travels through a task, as it would through a server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_pubsub::{
    Broker, Error, Lagged, Mailbox, Membership, Message, Publisher, Received, SubscribeOptions,
    Subscriber, Subscription, Topic,
};
use tokio::sync::{mpsc, oneshot};

type Done = oneshot::Sender<()>;

enum Command {
    Publish(Message),
    Open(u64, Mailbox, Done),
    Join(u64, Topic, Done),
    Leave(u64, Topic, Done),
    Interrupt,
    Close(Done),
}

#[derive(Debug, Clone)]
pub(crate) struct Relay {
    commands: mpsc::Sender<Command>,
    last_number: Arc<AtomicU64>,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let (commands, received) = mpsc::channel(16);
        // It ends when the last sender is dropped.
        drop(tokio::spawn(run(received)));
        Self {
            commands,
            last_number: Arc::default(),
        }
    }
}

async fn send(commands: &mpsc::Sender<Command>, command: Command) -> Result<(), Error> {
    commands.send(command).await.map_err(|_| Error::Closed)
}

async fn call(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(Done) -> Command + Send,
) -> Result<(), Error> {
    let (done, reply) = oneshot::channel();
    send(commands, command(done)).await?;
    reply.await.map_err(|_| Error::Closed)
}

async fn run(mut commands: mpsc::Receiver<Command>) {
    let mut mailboxes: HashMap<u64, (Mailbox, Vec<Topic>)> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Publish(message) => {
                for (mailbox, topics) in mailboxes.values() {
                    if topics.contains(message.topic())
                        && let Some(waiting) = mailbox.deliver(message.clone())
                    {
                        waiting.settle().await;
                    }
                }
            }
            Command::Open(number, mailbox, done) => {
                mailboxes.insert(number, (mailbox, Vec::new()));
                let _gone = done.send(());
            }
            Command::Join(number, topic, done) => {
                if let Some((_, topics)) = mailboxes.get_mut(&number) {
                    topics.push(topic);
                }
                let _gone = done.send(());
            }
            Command::Leave(number, topic, done) => {
                if let Some((_, topics)) = mailboxes.get_mut(&number) {
                    topics.retain(|other| *other != topic);
                }
                let _gone = done.send(());
            }
            Command::Interrupt => {
                for (mailbox, _) in mailboxes.values() {
                    mailbox.interrupted();
                }
            }
            Command::Close(done) => {
                commands.close();
                for (mailbox, _) in mailboxes.values() {
                    mailbox.close();
                }
                let _gone = done.send(());
                return;
            }
        }
    }
}

#[async_trait]
impl Publisher for Relay {
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), Error> {
        let message = Message::new(topic.clone(), payload);
        send(&self.commands, Command::Publish(message)).await
    }
}

#[async_trait]
impl Subscriber for Relay {
    async fn subscribe(
        &self,
        topics: Vec<Topic>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed);
        let mailbox = Mailbox::new(options);
        let member = Member {
            commands: self.commands.clone(),
            number,
        };
        let subscription = Subscription::new(mailbox.clone(), member);
        call(&self.commands, |done| Command::Open(number, mailbox, done)).await?;
        for topic in topics {
            subscription.topics().add(&topic).await?;
        }
        Ok(subscription)
    }
}

#[async_trait]
impl Broker for Relay {
    async fn close(&self) {
        // It may be closed already.
        let _closed = call(&self.commands, Command::Close).await;
    }
}

/// What it is dropped with, an abandoned mailbox, takes nothing: there is nothing to leave.
struct Member {
    commands: mpsc::Sender<Command>,
    number: u64,
}

#[async_trait]
impl Membership for Member {
    async fn join(&self, topic: &Topic) -> Result<(), Error> {
        call(&self.commands, |done| {
            Command::Join(self.number, topic.clone(), done)
        })
        .await
    }

    async fn leave(&self, topic: &Topic) -> Result<(), Error> {
        call(&self.commands, |done| {
            Command::Leave(self.number, topic.clone(), done)
        })
        .await
    }
}

#[tokio::test]
async fn subscribers_learn_that_a_broker_was_interrupted() {
    let relay = Relay::start();
    let topic: Topic = "app.default.orders".parse().unwrap();
    let mut subscription = relay
        .subscribe(vec![topic.clone()], SubscribeOptions::default())
        .await
        .unwrap();
    relay.publish(&topic, "before".into()).await.unwrap();
    send(&relay.commands, Command::Interrupt).await.unwrap();
    relay.publish(&topic, "after".into()).await.unwrap();

    let message = |payload| Received::Message(Message::new(topic.clone(), payload));
    assert_eq!(subscription.recv().await, Some(message("before")));
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(subscription.recv().await, Some(lagged));
    assert_eq!(subscription.recv().await, Some(message("after")));
}
