use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::interest::Interest;
use crate::{Mailbox, Pattern, Topic};

/// The mailboxes of one topic or pattern, by the number of their subscription. A delivery takes
/// a clone of the `Arc` and needs no lock; a change copies the map only during a delivery.
type Mailboxes = Arc<HashMap<u64, Mailbox>>;

/// Who wants what, within this process.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    last_number: u64,
    members: HashMap<u64, Mailbox>,
    topics: HashMap<Topic, Mailboxes>,
    patterns: HashMap<Pattern, Mailboxes>,
}

/// Who gets a message: each subscription once, whatever it has asked for.
#[derive(Debug, Default)]
pub(crate) struct Recipients {
    /// Most messages have no others, and need no memory for them.
    first: Option<Mailboxes>,
    others: Vec<Mailboxes>,
}

impl Directory {
    /// Takes in a subscription that wants nothing yet, and returns its number.
    pub(crate) fn add(&mut self, mailbox: &Mailbox) -> u64 {
        self.last_number += 1;
        self.members.insert(self.last_number, mailbox.clone());
        self.last_number
    }

    /// Who gets the messages of this topic.
    pub(crate) fn recipients(&self, topic: &str) -> Recipients {
        let patterns = self.patterns.iter();
        let matching = patterns.filter(|(pattern, _)| pattern.matches_name(topic));
        Recipients {
            first: self.topics.get(topic).cloned(),
            others: matching.map(|(_, mailboxes)| mailboxes.clone()).collect(),
        }
    }

    pub(crate) fn enter(&mut self, interest: &Interest, number: u64, mailbox: &Mailbox) {
        let mailboxes = match interest {
            Interest::Topic(topic) => self.topics.entry(topic.clone()).or_default(),
            Interest::Pattern(pattern) => self.patterns.entry(pattern.clone()).or_default(),
        };
        Arc::make_mut(mailboxes).insert(number, mailbox.clone());
    }

    pub(crate) fn leave(&mut self, interest: &Interest, number: u64) {
        let is_empty = self.mailboxes(interest).is_some_and(|mailboxes| {
            Arc::make_mut(mailboxes).remove(&number);
            mailboxes.is_empty()
        });
        if is_empty {
            match interest {
                Interest::Topic(topic) => drop(self.topics.remove(topic)),
                Interest::Pattern(pattern) => drop(self.patterns.remove(pattern)),
            }
        }
    }

    fn mailboxes(&mut self, interest: &Interest) -> Option<&mut Mailboxes> {
        match interest {
            Interest::Topic(topic) => self.topics.get_mut(topic),
            Interest::Pattern(pattern) => self.patterns.get_mut(pattern),
        }
    }

    /// Forgets a subscription, which wants these.
    pub(crate) fn remove<'a>(
        &mut self,
        number: u64,
        interests: impl IntoIterator<Item = &'a Interest>,
    ) {
        self.members.remove(&number);
        for interest in interests {
            self.leave(interest, number);
        }
    }

    /// Closes every mailbox.
    pub(crate) fn close(self) {
        for mailbox in self.members.values() {
            mailbox.close();
        }
    }

    #[cfg(any(test, feature = "postgres", feature = "redis"))]
    pub(crate) fn has(&self, interest: &Interest) -> bool {
        match interest {
            Interest::Topic(topic) => self.topics.contains_key(topic),
            Interest::Pattern(pattern) => self.patterns.contains_key(pattern),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.topics.is_empty() && self.patterns.is_empty()
    }
}

/// What a broker that reaches its server over a network needs beyond that.
#[cfg(any(feature = "postgres", feature = "redis"))]
impl Directory {
    /// Everything that is wanted.
    pub(crate) fn interests(&self) -> impl Iterator<Item = Interest> {
        let topics = self.topics.keys().map(Interest::from);
        topics.chain(self.patterns.keys().map(Interest::from))
    }

    pub(crate) fn wants_nothing(&self) -> bool {
        self.topics.is_empty() && self.patterns.is_empty()
    }

    /// The topic of this name, if a subscription has it. A name that only a pattern matches may not be a topic.
    pub(crate) fn topic(&self, name: &str) -> Option<Topic> {
        match self.topics.get_key_value(name) {
            Some((topic, _)) => Some(topic.clone()),
            None if self.patterns.keys().any(|it| it.matches_name(name)) => name.parse().ok(),
            None => None,
        }
    }

    /// Who wants one of exactly these.
    pub(crate) fn members<'a>(
        &self,
        interests: impl IntoIterator<Item = &'a Interest>,
    ) -> Recipients {
        let mailboxes = interests.into_iter().filter_map(|interest| match interest {
            Interest::Topic(topic) => self.topics.get(topic),
            Interest::Pattern(pattern) => self.patterns.get(pattern),
        });
        Recipients {
            first: None,
            others: mailboxes.cloned().collect(),
        }
    }
}

impl Recipients {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    /// How many there are; some may be counted twice.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn len(&self) -> usize {
        let groups = self.first.iter().chain(&self.others);
        groups.map(|group| group.len()).sum()
    }

    pub(crate) fn for_each(&self, mut deliver: impl FnMut(&Mailbox)) {
        for mailbox in self.first.iter().flat_map(|group| group.values()) {
            deliver(mailbox);
        }
        for (place, group) in self.others.iter().enumerate() {
            let before = || self.first.iter().chain(&self.others[..place]);
            for (number, mailbox) in &**group {
                // Who is in a group before has it already.
                if !before().any(|it| it.contains_key(number)) {
                    deliver(mailbox);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{Namespace, SubscribeOptions};

    /// Topics and patterns of which some include each other.
    fn interests() -> Vec<Interest> {
        let namespace = Namespace::default();
        let topics = ["a", "b", "ab"].map(|it| Interest::Topic(namespace.topic(it).unwrap()));
        let patterns =
            ["*", "a*", "*b"].map(|it| Interest::Pattern(namespace.pattern(it).unwrap()));
        topics.into_iter().chain(patterns).collect()
    }

    proptest! {
        /// Whatever is entered, left and forgotten, a message goes once to each one that has asked
        /// for it in some way.
        #[test]
        fn each_gets_what_it_has_asked_for_once(
            steps in prop::collection::vec((0..4_usize, 0..6_usize, 0..3_u8), 0..40),
        ) {
            let mut directory = Directory::default();
            let interests = interests();
            let mailboxes: Vec<_> = (0..4).map(|_| Mailbox::new(SubscribeOptions::default())).collect();
            let numbers: Vec<_> = mailboxes.iter().map(|it| directory.add(it)).collect();
            let mut wanted = vec![HashSet::new(); 4];
            for (who, what, step) in steps {
                let (number, interest) = (numbers[who], &interests[what]);
                match step {
                    0 | 1 => {
                        directory.enter(interest, number, &mailboxes[who]);
                        wanted[who].insert(interest.clone());
                    }
                    _ => {
                        directory.leave(interest, number);
                        wanted[who].remove(interest);
                    }
                }
            }
            for name in ["a", "b", "ab", "c"] {
                let topic = Namespace::default().topic(name).unwrap();
                let recipients = directory.recipients(topic.as_str());
                recipients.for_each(|mailbox| {
                    mailbox.deliver_or_queue(crate::Message::new(topic.clone(), name));
                });
                for (mailbox, wanted) in mailboxes.iter().zip(&wanted) {
                    let asked = wanted.iter().any(|it| it.includes(topic.as_str()));
                    let waker = std::task::Waker::noop();
                    let mut cx = std::task::Context::from_waker(waker);
                    let mut count = 0;
                    while mailbox.poll_next(&mut cx).is_ready() {
                        count += 1;
                    }
                    prop_assert_eq!(count, u32::from(asked), "of {}", name);
                }
            }
            for (number, wanted) in numbers.iter().zip(&wanted) {
                directory.remove(*number, wanted);
            }
            prop_assert!(directory.is_empty());
        }
    }
}
