use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tidings_notify::{Draft, Epoch, Event, EventId, MemoryStore, Store, UserId};

use crate::raw::Raw;

/// A ring for each user behind one lock.
pub(crate) struct Alone(Mutex<HashMap<UserId, Log>>);

struct Log {
    top: EventId,
    events: VecDeque<(Timestamp, Event)>,
}

const MOST: usize = 10_000;

pub(crate) fn engines() -> (Arc<dyn Store>, Alone) {
    let store = MemoryStore::new().with_max_events_per_user(MOST);
    (Arc::new(store), Alone(Mutex::default()))
}

impl Raw for Alone {
    async fn append(&self, drafts: Vec<Draft>) -> usize {
        let mut logs = self.0.lock().unwrap();
        let now = Timestamp::now();
        let append = |draft: Draft| {
            let log = logs.entry(draft.user().clone()).or_insert_with(|| Log {
                top: EventId::new(Epoch::random(), 0),
                events: VecDeque::new(),
            });
            log.top.seq += 1;
            let event = Event::from_draft(draft, log.top);
            log.events.push_back((now, event.clone()));
            if log.events.len() > MOST {
                log.events.pop_front();
            }
            event
        };
        let events: Vec<Event> = drafts.into_iter().map(append).collect();
        events.len()
    }
}
