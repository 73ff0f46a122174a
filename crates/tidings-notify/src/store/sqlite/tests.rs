//! What calls cost in a long log, in steps of SQLite's virtual machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use super::{change, cleanup, inbox, schema};
use crate::store::retention::Retention;
use crate::{Epoch, EventId, EventType, InboxAction, InboxQuery, UserId};

/// A file with one log, which counts steps.
struct Counted {
    /// How many events were replaced.
    replaced: u64,
    connection: Connection,
    steps: Arc<AtomicU64>,
}

/// So many events that were replaced while they were unread, and the one that replaced the last of them.
const REPLACED: &str = "
    INSERT INTO notify_log (id, user, epoch, top_seq, unread, unseen, latest_at, stored_at, changed)
        VALUES (1, 'ann', 7, ?1 + 1, 1, 1, 0, 0, 1);
    WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq <= ?1)
        INSERT INTO notify_event (key, timestamp, latest_at, stored_at, type, payload, event_key)
        SELECT 1 << 32 | seq, 0, 0, 0, 't', '1', 'k' FROM n;
    INSERT INTO notify_state (key, is_unread, archived_at)
        SELECT key, 1, 0 FROM notify_event WHERE key <= (1 << 32 | ?1);
    INSERT INTO notify_archived (key, last) VALUES (1 << 32 | 1, 1 << 32 | ?1);
    INSERT INTO notify_key (log, event_key, seq) VALUES (1, 'k', ?1 + 1);
";

/// An event of the log.
fn id(seq: u64) -> EventId {
    EventId::new(Epoch::from_u64(7), seq)
}

fn ann() -> UserId {
    UserId::new("ann").unwrap()
}

impl Counted {
    fn with_replaced(events: u64) -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        let rows = REPLACED.replace("?1", &events.to_string());
        for step in schema::STEPS.iter().copied().chain([&*rows]) {
            connection.execute_batch(step).unwrap();
        }
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        Self {
            replaced: events,
            connection,
            steps,
        }
    }

    /// What an action costs that changes nothing.
    fn steps_of_nothing(&mut self, action: &InboxAction) -> u64 {
        self.steps_of(|tx| {
            let update = change::change(tx, &ann(), action, Timestamp::now());
            assert_eq!(update.unwrap().changed, 0);
        })
    }

    fn steps_of(&mut self, work: impl FnOnce(&Transaction<'_>)) -> u64 {
        let transaction = self.connection.transaction().unwrap();
        let before = self.steps.load(Ordering::Relaxed);
        work(&transaction);
        let steps = self.steps.load(Ordering::Relaxed) - before;
        transaction.commit().unwrap();
        steps
    }
}

/// What some work costs beside a thousand events that were replaced, and beside a hundred thousand.
fn assert_costs_the_same(work: impl Fn(&mut Counted) -> u64) {
    let [few, many] = [1_000, 100_000].map(|events| work(&mut Counted::with_replaced(events)));
    assert!(few > 0);
    assert!(many < 2 * few, "{few} steps, and {many} in the long log");
}

#[test]
fn regression_a_step_of_a_cleanup_costs_as_much_in_a_long_log_as_in_a_short_one() {
    let to_go = cleanup::ToGo::new(Retention::default(), Timestamp::now());
    assert_costs_the_same(|log| {
        log.steps_of(|tx| assert_eq!(to_go.trim(tx, &ann()).unwrap(), 512))
    });
}

#[test]
fn regression_read_all_costs_as_much_beside_any_number_of_replaced_events() {
    assert_costs_the_same(|log| {
        log.steps_of(|tx| {
            let update = change::change(tx, &ann(), &InboxAction::ReadAll, Timestamp::now());
            assert_eq!(update.unwrap().changed, 1);
        })
    });
}

#[test]
fn regression_up_to_an_old_event_costs_as_much_beside_any_number_of_replaced_events() {
    for action in [InboxAction::SeeUpTo, InboxAction::ReadUpTo] {
        assert_costs_the_same(|log| log.steps_of_nothing(&action(id(1))));
    }
}

#[test]
fn regression_what_reading_up_to_an_event_has_passed_is_not_counted_again() {
    assert_costs_the_same(|log| {
        let action = InboxAction::ReadUpTo(id(log.replaced / 2));
        log.steps_of_nothing(&action);
        log.steps_of_nothing(&action)
    });
}

#[test]
fn regression_a_list_of_what_is_unread_costs_as_much_beside_any_number_of_replaced_events() {
    assert_costs_the_same(|log| {
        log.steps_of(|tx| {
            change::change(tx, &ann(), &InboxAction::ReadAll, Timestamp::now()).unwrap();
        });
        let unread = InboxQuery::default().with_unread_only();
        log.steps_of(|tx| assert_eq!(inbox::page(tx, &ann(), &unread).unwrap().events, []))
    });
}

/// Every second event is archived, and none is of the type that is asked for.
#[test]
fn regression_many_short_runs_cost_a_list_no_more_than_the_events_in_them() {
    let rare = InboxQuery::default().with_event_type(EventType::new("rare").unwrap());
    let steps_of = |rows: &str| {
        let mut log = Counted::with_replaced(10_000);
        log.connection.execute_batch(rows).unwrap();
        log.steps_of(|tx| assert_eq!(inbox::page(tx, &ann(), &rare).unwrap().events, []))
    };
    let whole = "DELETE FROM notify_state; DELETE FROM notify_archived";
    let alternating = "DELETE FROM notify_state WHERE key % 2 = 0; DELETE FROM notify_archived;
        INSERT INTO notify_archived (key, last) SELECT key, key FROM notify_state";
    let [whole, alternating] = [whole, alternating].map(steps_of);
    assert!(
        2 * alternating < 3 * whole,
        "{alternating} steps, {whole} without archived events"
    );
}

#[test]
fn regression_a_list_costs_as_much_beside_any_number_of_replaced_events() {
    for query in [
        InboxQuery::default(),
        InboxQuery::default().with_unread_only(),
    ] {
        assert_costs_the_same(|log| {
            let newest = id(log.replaced + 1);
            log.steps_of(|tx| {
                let page = inbox::page(tx, &ann(), &query).unwrap();
                let listed: Vec<_> = page.events.iter().map(|event| event.id).collect();
                assert_eq!((listed, page.next), (vec![newest], None));
            })
        });
    }
}
