use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tidings_stream::engine::Engine;
use tidings_stream::{MemoryEngine, NewMessage};
use tokio::time::Instant;

use crate::raw::{PAYLOAD, Raw};

/// A ring of whole messages with one group: a cursor, and what it has claimed.
#[derive(Default)]
pub(crate) struct Ring(Mutex<State>);

#[derive(Default)]
struct State {
    messages: VecDeque<(NewMessage, Timestamp)>,
    tail: u64,
    cursor: u64,
    pending: BTreeMap<u64, Instant>,
}

pub(crate) fn engines() -> (Arc<dyn Engine>, Ring) {
    (Arc::new(MemoryEngine::new()), Ring::default())
}

impl Raw for Ring {
    async fn publish(&self, batch: usize) {
        let messages = vec![NewMessage::new(&PAYLOAD[..]); batch];
        let now = Timestamp::now();
        let messages = messages.into_iter().map(|message| (message, now));
        self.0.lock().unwrap().messages.extend(messages);
        // A caller that never waits would keep all others from running.
        tokio::task::yield_now().await;
    }

    async fn consume(&self, batch: usize) -> usize {
        let claimed: Vec<(u64, (NewMessage, Timestamp))> = {
            let mut state = self.0.lock().unwrap();
            let now = Instant::now();
            let first = state.cursor;
            let skipped = (first - state.tail) as usize;
            let messages = state.messages.iter().skip(skipped).take(batch).cloned();
            let claimed: Vec<_> = (first..).zip(messages).collect();
            state.cursor += claimed.len() as u64;
            let numbers = claimed.iter().map(|(number, _)| *number);
            state.pending.extend(numbers.map(|number| (number, now)));
            claimed
        };
        let claimed = black_box(claimed);
        let mut state = self.0.lock().unwrap();
        for (number, _) in &claimed {
            state.pending.remove(number);
        }
        // What its only group is done with is of no use.
        let done = (state.cursor - state.tail) as usize;
        state.messages.drain(..done);
        state.tail = state.cursor;
        claimed.len()
    }
}
