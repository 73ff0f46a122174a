//! What both sides have done, and whether that agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tidings_stream::{Message, MessageId, PendingMessage, Streams, dead_letter};

use super::{GROUPS, IN_ORDER, MAX_IN_FLIGHT, MAX_RETRIES, Opened, STREAM};

/// Something that a process has done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Event {
    /// It is about to publish this number.
    Publishing(u64),
    /// The number is stored, under this id.
    Accepted(u64, u64),
    /// The number is not stored.
    Refused(u64),
    /// A handler was called, at this time in microseconds.
    Called(Call, i64),
    /// It is about to return a success.
    Succeeded(Call, i64),
    /// It was not cut short.
    Ended(Call),
}

/// A call of a handler.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) group: usize,
    pub(super) id: u64,
    pub(super) attempt: u32,
    pub(super) number: u64,
}

/// The events of one process.
#[derive(Debug)]
pub(super) enum Record {
    Memory {
        events: Mutex<Vec<Event>>,
        accepted: AtomicU64,
    },
    /// A line for each event, which a killed process leaves behind.
    File(Mutex<File>),
}

impl Record {
    pub(super) fn in_memory() -> Self {
        Self::Memory {
            events: Mutex::default(),
            accepted: AtomicU64::new(0),
        }
    }

    pub(super) fn in_file(path: &Path) -> Self {
        Self::File(Mutex::new(File::create_new(path).unwrap()))
    }

    /// The events of a process that has ended.
    pub(super) fn read(path: &Path) -> Vec<Event> {
        let written = std::fs::read_to_string(path).unwrap_or_default();
        // It may have died in the middle of its last line.
        let whole = written.rfind('\n').map_or("", |end| &written[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(super) fn note(&self, event: Event) {
        match self {
            Self::Memory { events, accepted } => {
                if matches!(event, Event::Accepted(..)) {
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                events.lock().unwrap().push(event);
            }
            Self::File(file) => {
                let line = serde_json::to_string(&event).unwrap() + "\n";
                file.lock().unwrap().write_all(line.as_bytes()).unwrap();
            }
        }
    }

    /// How many numbers this process has stored.
    pub(super) fn accepted(&self) -> u64 {
        match self {
            Self::Memory { accepted, .. } => accepted.load(Ordering::Relaxed),
            Self::File(_) => 0,
        }
    }

    pub(super) fn events(&self) -> Vec<Event> {
        match self {
            Self::Memory { events, .. } => events.lock().unwrap().clone(),
            Self::File(_) => Vec::new(),
        }
    }
}

/// What a history may show that others may not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowed {
    /// A crash of the server may undo claims, which are made again with the same attempt.
    pub(super) same_attempt_twice: bool,
    /// A process may die between a claim and its handlers.
    pub(super) claims_without_handlers: bool,
}

async fn read_all(streams: &Streams, stream: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map(|message| message.id);
        let page = streams.read(stream, after, 1000).await.unwrap();
        if page.is_empty() {
            return messages;
        }
        messages.extend(page);
    }
}

/// The ordering key of a number. Every fourth has none, and the others share each with a few.
pub(super) fn ordering_key(number: u64) -> Option<u64> {
    (!number.is_multiple_of(4)).then_some(number % 40)
}

fn number(message: &Message) -> u64 {
    let payload = std::str::from_utf8(&message.payload).unwrap();
    payload.parse().unwrap()
}

/// Holds the events of all processes against what the store has.
pub(super) async fn verify(
    events: &[Event],
    looks: &[Vec<PendingMessage>],
    observer: &Opened,
    allowed: Allowed,
) {
    let Opened {
        streams: observer,
        effects,
    } = observer;
    let effects = match effects {
        Some(effects) => effects.all().await,
        None => BTreeMap::new(),
    };
    let stored = read_all(observer, STREAM).await;
    let by_id: BTreeMap<u64, u64> = stored.iter().map(|m| (m.id.as_u64(), number(m))).collect();
    verify_published(events, &by_id, stored.len());

    let letters = read_all(observer, &format!("{STREAM}.dead")).await;
    let stats = observer.stats(STREAM).await.unwrap();
    let of_group = effects
        .iter()
        .filter(|((worker, _), _)| *worker == IN_ORDER);
    let own = of_group.map(|((_, id), attempt)| (*id, *attempt)).collect();
    verify_order(events, &by_id, &letters, &own);
    verify_pending(looks, &by_id);
    for (index, group) in GROUPS.iter().enumerate() {
        let of_group = letters
            .iter()
            .filter(|letter| letter.headers[dead_letter::GROUP] == *group);
        let dead = dead_letters(of_group, &by_id);
        let of_group = effects.iter().filter(|((worker, _), _)| *worker == index);
        let effects = of_group.map(|((_, id), attempt)| (*id, *attempt)).collect();
        verify_handled(events, &by_id, &dead, &effects, index, allowed);
        let figures = stats.groups.iter().find(|it| it.name.as_str() == *group);
        let figures = figures.unwrap();
        assert_eq!(figures.dead_lettered, dead.len() as u64);
        assert_eq!((figures.lost_to_trim, figures.lag_time), (0, None));
    }
}

/// What was pending in the group that keeps the order of keys, at each look: no more messages
/// were claimed than it may have, and of each key the first alone was, or had been.
pub(super) fn verify_pending(looks: &[Vec<PendingMessage>], by_id: &BTreeMap<u64, u64>) {
    assert!(
        looks.iter().any(|pending| pending.len() > 1),
        "some was pending"
    );
    for pending in looks {
        let claimed = pending
            .iter()
            .filter(|it| it.consumer.is_some() && !it.due_in.is_zero());
        assert!(claimed.count() <= MAX_IN_FLIGHT as usize, "{pending:?}");
        let mut keys = BTreeSet::new();
        for message in pending {
            if let Some(key) = ordering_key(by_id[&message.id.as_u64()])
                && !keys.insert(key)
            {
                let waits = message.attempts == 0 && message.consumer.is_none();
                assert!(
                    waits,
                    "{message:?} is not the first of {key} in {pending:?}"
                );
            }
        }
    }
}

/// In the group that keeps the order of keys, no message is given to a handler before each earlier one of its key
/// has succeeded, or died.
fn verify_order(
    events: &[Event],
    by_id: &BTreeMap<u64, u64>,
    letters: &[Message],
    effects: &BTreeMap<u64, u32>,
) {
    let mut called: BTreeMap<u64, i64> = BTreeMap::new();
    let mut ended: BTreeMap<u64, i64> = BTreeMap::new();
    for event in events {
        let (first, id, at) = match event {
            Event::Called(call, at) if call.group == IN_ORDER => (&mut called, call.id, *at),
            Event::Succeeded(call, at) if call.group == IN_ORDER => (&mut ended, call.id, *at),
            _ => continue,
        };
        let first = first.entry(id).or_insert(at);
        *first = at.min(*first);
    }
    for letter in letters {
        if letter.headers[dead_letter::GROUP] == GROUPS[IN_ORDER] {
            let id: MessageId = letter.headers[dead_letter::ID].parse().unwrap();
            ended
                .entry(id.as_u64())
                .or_insert(letter.created_at.as_microsecond());
        }
    }
    let mut last_of_key: BTreeMap<u64, u64> = BTreeMap::new();
    let mut compared = 0;
    for (id, number) in by_id {
        let Some(key) = ordering_key(*number) else {
            continue;
        };
        let Some(before) = last_of_key.insert(key, *id) else {
            continue;
        };
        // When a transaction has settled one is not recorded.
        if effects.contains_key(&before) {
            continue;
        }
        // One whose handler was killed before it could note its call has none.
        if let (Some(ended), Some(called)) = (ended.get(&before), called.get(id)) {
            compared += 1;
            assert!(
                ended <= called,
                "{id} was handled before {before} of {key} had ended"
            );
        }
    }
    assert!(
        compared > 10,
        "{compared} neighbours of a key were compared"
    );
}

/// What was accepted is stored once, under the id that was returned; nothing else is stored but publishes
/// of unknown outcome.
fn verify_published(events: &[Event], by_id: &BTreeMap<u64, u64>, stored: usize) {
    assert_eq!(by_id.len(), stored);
    assert!((1..=stored as u64).eq(by_id.keys().copied()), "dense ids");
    let numbers: BTreeSet<u64> = by_id.values().copied().collect();
    assert_eq!(numbers.len(), stored, "stored once each");
    let mut possible = BTreeSet::new();
    for event in events {
        match *event {
            Event::Publishing(number) => drop(possible.insert(number)),
            Event::Refused(number) => drop(possible.remove(&number)),
            Event::Accepted(number, id) => {
                assert_eq!(by_id.get(&id), Some(&number), "{id} was accepted");
            }
            Event::Called(..) | Event::Succeeded(..) | Event::Ended(_) => {}
        }
    }
    let stray: Vec<_> = numbers.difference(&possible).collect();
    assert!(
        stray.is_empty(),
        "stored, and refused or never published: {stray:?}"
    );
}

/// How many attempts the letters of a group count, by the id of the message.
fn dead_letters<'a>(
    letters: impl Iterator<Item = &'a Message>,
    by_id: &BTreeMap<u64, u64>,
) -> BTreeMap<u64, u32> {
    let mut dead = BTreeMap::new();
    for letter in letters {
        let id: MessageId = letter.headers[dead_letter::ID].parse().unwrap();
        let id = id.as_u64();
        assert_eq!(by_id.get(&id), Some(&number(letter)), "the letter of {id}");
        let attempts = letter.headers[dead_letter::ATTEMPTS].parse().unwrap();
        assert_eq!(dead.insert(id, attempts), None, "{id} died twice");
    }
    dead
}

/// Each message was handled or died, and comes again only as another attempt.
fn verify_handled(
    events: &[Event],
    by_id: &BTreeMap<u64, u64>,
    dead: &BTreeMap<u64, u32>,
    effects: &BTreeMap<u64, u32>,
    group: usize,
    allowed: Allowed,
) {
    let mut attempts: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut ended: BTreeMap<(u64, u32), u32> = BTreeMap::new();
    let mut succeeded = BTreeSet::new();
    for event in events {
        match event {
            Event::Called(call, _) if call.group == group => {
                assert_eq!(by_id.get(&call.id), Some(&call.number));
                assert!(call.attempt <= MAX_RETRIES + 1, "{call:?}");
                attempts.entry(call.id).or_default().push(call.attempt);
            }
            Event::Succeeded(call, _) if call.group == group => drop(succeeded.insert(call.id)),
            Event::Ended(call) if call.group == group => {
                *ended.entry((call.id, call.attempt)).or_default() += 1;
            }
            _ => {}
        }
    }
    for (id, attempts) in &mut attempts {
        attempts.sort_unstable();
        for pair in attempts.windows(2) {
            // A last attempt that was cut short, by a closing or by the end of its claim, is given back.
            let attempt = pair[0];
            let ended = ended.get(&(*id, attempt)).copied().unwrap_or(0);
            let is_given_back = attempt == MAX_RETRIES + 1 && ended <= 1;
            assert!(
                attempt < pair[1] || is_given_back || allowed.same_attempt_twice,
                "{id}: {attempts:?}, attempt {attempt} ended {ended} times"
            );
        }
    }
    for id in by_id.keys() {
        assert!(
            succeeded.contains(id) || dead.contains_key(id) || effects.contains_key(id),
            "{id} is lost to group {group}"
        );
        assert!(
            attempts.contains_key(id) || allowed.claims_without_handlers,
            "{id} died without a handler in group {group}"
        );
    }
    // What a transaction has settled is over: it neither dies nor comes again.
    for (id, attempt) in effects {
        assert!(
            by_id.contains_key(id) && !dead.contains_key(id),
            "{id} died after its effect"
        );
        let last = attempts.get(id).and_then(|attempts| attempts.last());
        assert_eq!(
            last,
            Some(attempt),
            "{id} came again after its effect, or was never called"
        );
    }
    // Dead letters say how many attempts there were.
    for (id, said) in dead {
        let own = attempts.get(id).map_or(&[][..], Vec::as_slice);
        let last = own.last().copied().unwrap_or(0);
        assert!(
            (last..=MAX_RETRIES + 1).contains(said),
            "{id}: {said}, {own:?}"
        );
    }
}
