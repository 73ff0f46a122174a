use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tidings_notify::{MemoryStore, Store};

use crate::raw::{Raw, TYPE, payload};

/// A ring for each user behind one lock.
pub(crate) struct Alone(Mutex<HashMap<String, VecDeque<Kept>>>);

type Kept = (u64, Arc<str>, Timestamp, Arc<str>);

const MOST: usize = 10_000;

pub(crate) fn engines() -> (Arc<dyn Store>, Alone) {
    let store = MemoryStore::new().with_max_events_per_user(MOST);
    (Arc::new(store), Alone(Mutex::default()))
}

impl Raw for Alone {
    async fn append(&self, users: usize, events: usize) {
        let mut logs = self.0.lock().unwrap();
        let payload: Arc<str> = payload().into();
        for number in 0..events {
            let log = logs.entry(format!("user-{}", number % users)).or_default();
            let next = log.back().map_or(1, |(last, ..)| last + 1);
            log.push_back((next, TYPE.into(), Timestamp::now(), payload.clone()));
            if log.len() > MOST {
                log.pop_front();
            }
        }
    }
}
