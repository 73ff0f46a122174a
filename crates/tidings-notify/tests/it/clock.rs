//! A store whose clock goes an hour ahead, and is set back.

use jiff::{SignedDuration, Timestamp};
use tidings_notify::redis::Config;
use tidings_notify::{InboxAction, Store};
use tidings_redis::redis::cmd;

use crate::database::Schema;
use crate::support::{ann, draft, fresh_sqlite, open_sqlite};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Numbers, marks and counts know no time, stamps stay what they were, and nothing goes too early.
async fn is_set_back(
    store: impl Store,
    go_ahead: impl AsyncFnOnce(),
    set_back: impl AsyncFnOnce(),
) {
    let now = Timestamp::now();
    let mark = store.mark().await.unwrap();
    let append = async |number, stamp| {
        let drafts = vec![draft(number).with_timestamp(stamp)];
        store.append(drafts).await.unwrap().remove(0)
    };
    let mut events = vec![append(0, now).await, append(1, now).await];
    go_ahead().await;
    events.push(append(2, now + HOUR).await);
    set_back().await;
    events.push(append(3, now).await);
    events.push(append(4, now - HOUR).await);

    let page = store.read(&ann(), 0, 10).await.unwrap();
    assert_eq!((&page.events, page.head.unread), (&events, 5));
    let changes = store.changes(&mark, 10).await.unwrap();
    assert_eq!(changes.logs.last().unwrap().user, ann());
    let read = InboxAction::ReadUpTo(events[3].id);
    let update = store.change(&ann(), &read, now - HOUR).await.unwrap();
    assert_eq!((update.changed, update.change.unread), (4, 1));

    // By the store's clock the third was stored in an hour, and so those after it.
    let soon = now + HOUR / 2;
    assert_eq!(store.cleanup(soon).await.unwrap(), 2);
    let head = store.head(&ann()).await.unwrap();
    assert_eq!((head.first_seq, head.top_seq, head.unread), (3, 5, 1));
    assert_eq!(store.cleanup(soon).await.unwrap(), 0);
    assert_eq!(store.cleanup(now + HOUR * 2).await.unwrap(), 3);
    let next = append(5, now).await;
    assert_eq!((next.id.epoch, next.id.seq), (events[0].id.epoch, 6));
    let head = store.head(&ann()).await.unwrap();
    assert_eq!((head.first_seq, head.unread), (6, 1));
}

#[tokio::test]
async fn the_system_clock_is_set_back_under_sqlite() {
    let (store, folder) = fresh_sqlite().await;
    // The log keeps how late it was.
    let go_ahead = async || {
        let later = "UPDATE notify_log SET stored_at = stored_at + 3600000000";
        open_sqlite(&folder)
            .write(|tx| Ok::<_, tidings_sqlite::Error>(tx.execute_batch(later)?))
            .await
            .unwrap();
    };
    is_set_back(store, go_ahead, async || {}).await;
}

#[tokio::test]
async fn the_clock_of_a_postgres_server_is_set_back() {
    let schema = Schema::create().await;
    let client = schema.client().await;
    let clock_is_ahead_by = async |hours: u64| {
        let clock = format!(
            "CREATE OR REPLACE FUNCTION tidings_notify_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
                 SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
                     + {hours} * 3600000000 $$"
        );
        client.batch_execute(&clock).await.unwrap();
    };
    let (go_ahead, set_back) = (
        async || clock_is_ahead_by(1).await,
        async || clock_is_ahead_by(0).await,
    );
    is_set_back(schema.store().await, go_ahead, set_back).await;
}

#[tokio::test]
async fn the_clock_of_a_redis_server_is_set_back() {
    let prefix = crate::redis::prefix();
    let config = Config::new(&crate::redis::url()).unwrap();
    let mut connection = config.connect(drop).await.unwrap().multiplexed();
    // The log keeps how late it was.
    let log = format!("{{{prefix}}}:log:ann");
    let go_ahead = async || {
        let mut later = cmd("HINCRBY");
        later.arg(log).arg("stored").arg(3_600_000_000_u64);
        later.exec_async(&mut connection).await.unwrap();
    };
    is_set_back(crate::redis::open(&prefix).await, go_ahead, async || {}).await;
}
