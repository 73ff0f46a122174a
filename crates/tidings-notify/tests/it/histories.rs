//! Random histories: whatever happens, a reader gets each event after its cursor once, in order.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use tidings_notify::{
    Event, EventId, Item, MAX_PAGE_BYTES, MemoryStore, Notifier, Since, Store, Subscription, UserId,
};

use crate::support::{draft, items_at_hand, user};

const INSTANCES: usize = 2;
const USERS: usize = 2;

/// One thing that happens. Indexes choose among what there is at the time.
#[derive(Debug, Clone)]
enum Step {
    /// An event is pushed on one instance; the other hears of it by its sweep.
    Push {
        instance: usize,
        user: usize,
    },
    /// An event is stored, and every wake-up is lost.
    Store {
        user: usize,
    },
    /// Some stored event is delivered, perhaps again, perhaps before earlier ones.
    Deliver {
        instance: usize,
        user: usize,
        event: Index,
    },
    /// A reader comes, from some event that once was, from the origin, or from now.
    Subscribe {
        instance: usize,
        user: usize,
        from: From,
    },
    /// A reader takes some items.
    Read {
        reader: Index,
        items: usize,
    },
    /// A reader's wait is cut short.
    Wait {
        reader: Index,
    },
    Leave {
        reader: Index,
    },
    /// Both instances sweep.
    Sweep,
}

#[derive(Debug, Clone)]
enum From {
    Now,
    Origin,
    Event(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let instance = 0..INSTANCES;
    let user = 0..USERS;
    let index = any::<Index>;
    let from = prop_oneof![
        Just(From::Now),
        Just(From::Origin),
        index().prop_map(From::Event)
    ];
    let step = prop_oneof![
        6 => (instance.clone(), user.clone())
            .prop_map(|(instance, user)| Step::Push { instance, user }),
        2 => user.clone().prop_map(|user| Step::Store { user }),
        2 => (instance.clone(), user.clone(), index())
            .prop_map(|(instance, user, event)| Step::Deliver { instance, user, event }),
        3 => (instance, user, from)
            .prop_map(|(instance, user, from)| Step::Subscribe { instance, user, from }),
        4 => (index(), 1..6_usize).prop_map(|(reader, items)| Step::Read { reader, items }),
        1 => index().prop_map(|reader| Step::Wait { reader }),
        1 => index().prop_map(|reader| Step::Leave { reader }),
        2 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..80)
}

/// A reader, and the number of the event that it must be given next.
struct Reader {
    stream: Subscription,
    next_seq: u64,
    caught_up: usize,
    keeps_all: bool,
}

impl Reader {
    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Event(event) => {
                    assert_eq!(event.id.seq, self.next_seq, "in order, once, without holes");
                    self.next_seq += 1;
                }
                Item::Gap(gap) => {
                    assert!(!self.keeps_all, "nothing was removed: {gap:?}");
                    assert!(gap.to.seq >= self.next_seq, "a gap goes forward: {gap:?}");
                    self.next_seq = gap.to.seq + 1;
                }
                Item::CaughtUp { .. } => self.caught_up += 1,
                // Unread events that retention removed are taken off the count.
                Item::Changed(change) => assert!(!self.keeps_all, "nothing was read: {change:?}"),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

struct World {
    store: MemoryStore,
    notifiers: Vec<Notifier>,
    users: Vec<UserId>,
    logs: Vec<Vec<Event>>,
    readers: Vec<Reader>,
    keeps_all: bool,
}

impl World {
    fn new(kept: usize, buffer: usize) -> Self {
        let store = MemoryStore::new().with_max_events_per_user(kept);
        let notifier = |_| {
            Notifier::builder(Arc::new(store.clone()))
                .buffer_size(buffer)
                .build()
                .unwrap()
        };
        Self {
            notifiers: (0..INSTANCES).map(notifier).collect(),
            users: (0..USERS).map(|n| user(&format!("user-{n}"))).collect(),
            logs: vec![Vec::new(); USERS],
            readers: Vec::new(),
            keeps_all: kept > 1000,
            store,
        }
    }

    async fn take_step(&mut self, step: Step) {
        match step {
            Step::Push { instance, user } => {
                let draft = draft(0).with_user(self.users[user].clone());
                let event = self.notifiers[instance].push(draft).await.unwrap();
                self.logs[user].push(event);
            }
            Step::Store { user } => {
                let draft = draft(0).with_user(self.users[user].clone());
                let events = self.store.append(vec![draft]).await.unwrap();
                self.logs[user].extend(events);
            }
            Step::Deliver {
                instance,
                user,
                event,
            } => {
                let log = &self.logs[user];
                if !log.is_empty() {
                    self.notifiers[instance].deliver(std::slice::from_ref(event.get(log)));
                }
            }
            Step::Subscribe {
                instance,
                user,
                from,
            } => {
                let log = &self.logs[user];
                let (since, next_seq) = match from {
                    From::Event(index) if !log.is_empty() => {
                        let id = index.get(log).id;
                        (Since::After(id), id.seq + 1)
                    }
                    From::Now => (Since::Now, log.len() as u64 + 1),
                    _ => (Since::Cursor(EventId::ORIGIN.to_string()), 1),
                };
                let user = self.users[user].clone();
                self.readers.push(Reader {
                    stream: self.notifiers[instance]
                        .subscribe(user, since)
                        .await
                        .unwrap(),
                    next_seq,
                    caught_up: 0,
                    keeps_all: self.keeps_all,
                });
            }
            Step::Read { reader, items } => {
                if let Some(reader) = self.reader(reader) {
                    let waited = Duration::from_millis(1);
                    let batch = tokio::time::timeout(
                        waited,
                        reader.stream.next_batch(items, MAX_PAGE_BYTES),
                    )
                    .await;
                    reader.take(batch.map_or(Vec::new(), |batch| batch.unwrap()));
                }
            }
            Step::Wait { reader } => {
                if let Some(reader) = self.reader(reader) {
                    let items = items_at_hand(&mut reader.stream);
                    reader.take(items);
                }
            }
            Step::Leave { reader } => {
                if !self.readers.is_empty() {
                    let index = reader.index(self.readers.len());
                    self.readers.swap_remove(index);
                }
            }
            Step::Sweep => tokio::time::sleep(Duration::from_secs(3)).await,
        }
    }

    fn reader(&mut self, index: Index) -> Option<&mut Reader> {
        let index = (!self.readers.is_empty()).then(|| index.index(self.readers.len()))?;
        self.readers.get_mut(index)
    }

    /// After one more sweep every reader gets the rest, and has it all.
    async fn settle(mut self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        for mut reader in self.readers {
            let items = items_at_hand(&mut reader.stream);
            reader.take(items);
            let user = self
                .users
                .iter()
                .position(|user| user == reader.stream.user())
                .unwrap();
            assert_eq!(
                reader.next_seq,
                self.logs[user].len() as u64 + 1,
                "nothing is missing"
            );
            assert_eq!(reader.caught_up, 1);
        }
        self.notifiers.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_reader_gets_each_event_after_its_cursor_once_and_in_order(
        steps in steps(),
        kept in prop_oneof![Just(usize::MAX), 1..8_usize],
        buffer in 1..5_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new(kept, buffer);
            for step in steps {
                world.take_step(step).await;
            }
            world.settle().await;
        });
    }
}
