use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::{Mailbox, Topic};

/// The mailboxes of one topic, by the number of their subscription. Whoever delivers takes a clone
/// of the `Arc` and needs no lock; a change copies the map only while somebody does.
pub(crate) type Mailboxes = Arc<HashMap<u64, Mailbox>>;

/// Who has which topic, within this process.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    last_number: u64,
    members: HashMap<u64, Mailbox>,
    topics: HashMap<Topic, Mailboxes>,
}

impl Directory {
    /// Takes in a subscription without topics, and answers its number.
    pub(crate) fn add(&mut self, mailbox: &Mailbox) -> u64 {
        self.last_number += 1;
        self.members.insert(self.last_number, mailbox.clone());
        self.last_number
    }

    pub(crate) fn mailboxes(&self, topic: &Topic) -> Option<Mailboxes> {
        self.topics.get(topic).cloned()
    }

    pub(crate) fn enter(&mut self, topic: &Topic, number: u64, mailbox: &Mailbox) {
        let mailboxes = self.topics.entry(topic.clone()).or_default();
        Arc::make_mut(mailboxes).insert(number, mailbox.clone());
    }

    pub(crate) fn leave(&mut self, topic: &Topic, number: u64) {
        if let Some(mailboxes) = self.topics.get_mut(topic) {
            Arc::make_mut(mailboxes).remove(&number);
            if mailboxes.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Forgets a subscription, which has these topics.
    pub(crate) fn remove(&mut self, number: u64, topics: &HashSet<Topic>) {
        self.members.remove(&number);
        for topic in topics {
            self.leave(topic, number);
        }
    }

    /// Closes every mailbox.
    pub(crate) fn close(self) {
        for mailbox in self.members.values() {
            mailbox.close();
        }
    }

    #[cfg(any(test, feature = "postgres", feature = "redis"))]
    pub(crate) fn has(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.topics.is_empty()
    }
}

/// What a broker that reaches its server over a network needs beyond that.
#[cfg(any(feature = "postgres", feature = "redis"))]
impl Directory {
    /// Every topic that somebody has.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }

    /// The topic of this name, if somebody has it, with its mailboxes.
    pub(crate) fn find(&self, name: &str) -> Option<(Topic, Mailboxes)> {
        let (topic, mailboxes) = self.topics.get_key_value(name)?;
        Some((topic.clone(), Arc::clone(mailboxes)))
    }
}
