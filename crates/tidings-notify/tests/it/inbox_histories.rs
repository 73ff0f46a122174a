//! Random histories of the inbox, compared with a model after every step.

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{
    Epoch, EventId, EventKey, InboxAction, InboxQuery, MemoryStore, Store, UserId,
};

use tokio::runtime::Runtime;

use tidings_sqlite::rusqlite::Row;

use crate::database::{Schema, connect};
use crate::support::{draft, fresh_sqlite, open_sqlite, user};

pub(crate) const USERS: usize = 2;

/// One thing that happens to one user's inbox, through the first handle or the second.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    user: usize,
    second: bool,
    kind: Kind,
}

impl Step {
    /// Whether it removes events of all users, log by log.
    pub(crate) fn is_trim(&self) -> bool {
        matches!(self.kind, Kind::Trim | Kind::TrimBefore(_))
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Append(Vec<Option<u8>>),
    /// Numbers, counted back from the top; some do not exist.
    Read(Vec<u64>),
    Unread(Vec<u64>),
    Archive(Vec<u64>),
    Unarchive(Vec<u64>),
    ReadUpTo(u64),
    ReadAll,
    SeeUpTo(u64),
    SeeAll,
    /// Removes everything of all users.
    Trim,
    /// Removes everything that was there before the last so many steps.
    TrimBefore(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let trim = (1..20_usize).prop_map(Kind::TrimBefore);
    vec(step(prop_oneof![25 => kind(), 2 => trim]), 1..60)
}

/// A history in which runs of archived events often get longer and shorter, are joined and are split.
fn steps_of_archive() -> impl Strategy<Value = Vec<Step>> {
    let ids = || vec(0..14_u64, 1..8);
    let kind = prop_oneof![
        2 => vec(prop::option::of(0..2_u8), 1..5).prop_map(Kind::Append),
        3 => ids().prop_map(Kind::Archive),
        3 => ids().prop_map(Kind::Unarchive),
        1 => (2..8_usize).prop_map(Kind::TrimBefore),
    ];
    vec(step(kind), 20..60)
}

/// A history that depends on nothing but its length: what is removed is removed whole.
pub(crate) fn steps_of_length(length: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(kind()), length)
}

fn step(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Step> {
    (0..USERS, any::<bool>(), kind).prop_map(|(user, second, kind)| Step { user, second, kind })
}

fn kind() -> impl Strategy<Value = Kind> {
    let back = || 0..14_u64;
    let ids = move || vec(back(), 0..5);
    prop_oneof![
        6 => vec(prop::option::of(0..3_u8), 1..5).prop_map(Kind::Append),
        3 => ids().prop_map(Kind::Read),
        3 => ids().prop_map(Kind::Unread),
        3 => ids().prop_map(Kind::Archive),
        3 => ids().prop_map(Kind::Unarchive),
        3 => back().prop_map(Kind::ReadUpTo),
        1 => Just(Kind::ReadAll),
        2 => back().prop_map(Kind::SeeUpTo),
        1 => Just(Kind::SeeAll),
        1 => Just(Kind::Trim),
    ]
}

/// An event as the model has it.
#[derive(Debug, Clone, PartialEq)]
struct Modelled {
    seq: u64,
    key: Option<u8>,
    /// The step that stored it.
    stored: usize,
    read_at: Option<Timestamp>,
    is_archived: bool,
}

/// One user's inbox, event by event, and nothing counted in advance.
#[derive(Debug, Default, Clone, PartialEq)]
struct Model {
    events: Vec<Modelled>,
    top: u64,
    seen: u64,
}

impl Model {
    fn first(&self) -> u64 {
        self.top + 1 - self.events.len() as u64
    }

    fn counts(&self) -> (u64, u64) {
        let unread = |event: &&Modelled| event.read_at.is_none() && !event.is_archived;
        let unseen = |event: &&Modelled| unread(event) && event.seq > self.seen;
        let count = |count: usize| count as u64;
        (
            count(self.events.iter().filter(unread).count()),
            count(self.events.iter().filter(unseen).count()),
        )
    }

    fn append(&mut self, key: Option<u8>, stored: usize) {
        for earlier in &mut self.events {
            earlier.is_archived |= key.is_some() && earlier.key == key;
        }
        self.top += 1;
        self.events.push(Modelled {
            seq: self.top,
            key,
            stored,
            read_at: None,
            is_archived: false,
        });
    }

    fn each(&mut self, back: &[u64], edit: impl Fn(&mut Modelled)) {
        let named: Vec<_> = back
            .iter()
            .map(|back| self.top.wrapping_sub(*back))
            .collect();
        let events = self.events.iter_mut();
        events
            .filter(|event| named.contains(&event.seq))
            .for_each(edit);
    }

    fn read_up_to(&mut self, last: u64, at: Timestamp) {
        for event in &mut self.events {
            if event.seq <= last && !event.is_archived {
                event.read_at = event.read_at.or(Some(at));
            }
        }
    }

    fn apply(&mut self, kind: &Kind, step: usize, at: Timestamp) {
        match kind {
            Kind::Append(keys) => keys.iter().for_each(|key| self.append(*key, step)),
            Kind::Read(ids) => self.each(ids, |event| event.read_at = event.read_at.or(Some(at))),
            Kind::Unread(ids) => self.each(ids, |event| event.read_at = None),
            Kind::Archive(ids) => self.each(ids, |event| event.is_archived = true),
            Kind::Unarchive(ids) => self.each(ids, |event| event.is_archived = false),
            Kind::ReadUpTo(back) => self.read_up_to(self.top.saturating_sub(*back), at),
            Kind::ReadAll => self.read_up_to(self.top, at),
            Kind::SeeUpTo(back) => self.seen = self.seen.max(self.top.saturating_sub(*back)),
            Kind::SeeAll => self.seen = self.top,
            Kind::Trim => self.events.clear(),
            Kind::TrimBefore(steps) => {
                let kept = step.saturating_sub(*steps);
                self.events.retain(|event| event.stored >= kept);
            }
        }
    }

    fn listed(&self, archived: bool, unread: bool) -> Vec<u64> {
        let is_listed = |event: &&Modelled| {
            event.is_archived == archived && (!unread || event.read_at.is_none())
        };
        let listed = self.events.iter().rev().filter(is_listed);
        listed.map(|event| event.seq).collect()
    }
}

/// A store under test: two handles, and the model beside them.
pub(crate) struct World<'a> {
    handles: [&'a dyn Store; 2],
    users: Vec<UserId>,
    models: Vec<Model>,
    epochs: Vec<Epoch>,
    /// A time after each step, and before everything that comes after it.
    times: Vec<Timestamp>,
}

impl<'a> World<'a> {
    pub(crate) fn new(first: &'a dyn Store, second: &'a dyn Store, history: u64) -> Self {
        Self {
            handles: [first, second],
            users: (0..USERS)
                .map(|number| user(&format!("{history:016x}-{number}")))
                .collect(),
            models: (0..USERS).map(|_| Model::default()).collect(),
            epochs: vec![Epoch::NONE; USERS],
            times: Vec::new(),
        }
    }

    /// Continues after steps that the store has taken.
    pub(crate) async fn resume(&mut self, taken: &[Step]) {
        for step in taken {
            self.model(step);
        }
        for (epoch, user) in self.epochs.iter_mut().zip(&self.users) {
            *epoch = self.handles[0].head(user).await.unwrap().epoch;
        }
    }

    /// The time that a step writes into the inbox: the same whenever the step is taken.
    fn at(&self) -> Timestamp {
        let number = i64::try_from(self.times.len()).unwrap();
        Timestamp::from_second(1_800_000_000 + number).unwrap()
    }

    /// Takes a step in the model alone.
    fn model(&mut self, step: &Step) {
        let (number, at) = (self.times.len(), self.at());
        for (user, model) in self.models.iter_mut().enumerate() {
            if step.is_trim() || user == step.user {
                model.apply(&step.kind, number, at);
            }
        }
        self.times.push(next_microsecond());
    }

    pub(crate) async fn take(&mut self, step: &Step) {
        let number = self.times.len();
        let at = self.at();
        let store = self.handles[usize::from(step.second)];
        let (user, top) = (&self.users[step.user], self.models[step.user].top);
        let id = |back: u64| EventId::new(self.epochs[step.user], top.saturating_sub(back));
        let ids = |back: &[u64]| {
            let seqs = back.iter().map(|back| top.wrapping_sub(*back));
            seqs.map(|seq| EventId::new(self.epochs[step.user], seq))
                .collect()
        };
        let action = match &step.kind {
            Kind::Append(keys) => {
                let drafts = keys.iter().map(|key| {
                    let draft = draft(0).with_user(user.clone());
                    match key {
                        Some(key) => draft.with_key(EventKey::new(key.to_string()).unwrap()),
                        None => draft,
                    }
                });
                let events = store.append(drafts.collect()).await.unwrap();
                self.epochs[step.user] = events[0].id.epoch;
                None
            }
            Kind::Trim => {
                store.cleanup(next_microsecond()).await.unwrap();
                None
            }
            Kind::TrimBefore(steps) => {
                // The time after the step before.
                let kept = number.saturating_sub(*steps);
                if let Some(before) = kept.checked_sub(1) {
                    store.cleanup(self.times[before]).await.unwrap();
                }
                None
            }
            Kind::Read(back) => Some(InboxAction::Read(ids(back))),
            Kind::Unread(back) => Some(InboxAction::Unread(ids(back))),
            Kind::Archive(back) => Some(InboxAction::Archive(ids(back))),
            Kind::Unarchive(back) => Some(InboxAction::Unarchive(ids(back))),
            Kind::ReadUpTo(back) => Some(InboxAction::ReadUpTo(id(*back))),
            Kind::ReadAll => Some(InboxAction::ReadAll),
            Kind::SeeUpTo(back) => Some(InboxAction::SeeUpTo(id(*back))),
            Kind::SeeAll => Some(InboxAction::SeeAll),
        };
        let before = store.head(user).await.unwrap();
        let update = match &action {
            Some(action) => Some(store.change(user, action, at).await.unwrap()),
            None => None,
        };
        self.model(step);
        if let Some(update) = update {
            let counts = (update.change.unread, update.change.unseen);
            assert_eq!(counts, self.models[step.user].counts(), "{action:?}");
            assert_eq!(update.change.cursor, before.top());
            let moved = u64::from(update.changed > 0);
            assert_eq!(update.revision, before.revision + moved);
        }
        for user in 0..USERS {
            self.check(user, step.second).await;
        }
    }

    /// The other handle sees what the model has.
    pub(crate) async fn check(&self, user: usize, second: bool) {
        let store = self.handles[usize::from(!second)];
        let (name, model) = (&self.users[user], &self.models[user]);
        let head = store.head(name).await.unwrap();
        assert_eq!((head.first_seq, head.top_seq), (model.first(), model.top));
        assert_eq!((head.unread, head.unseen), model.counts());
        let page = store.read(name, 0, 1000).await.unwrap();
        assert_eq!(page.head, head);
        for (event, modelled) in page.events.iter().zip(&model.events) {
            assert_eq!(event.id.seq, modelled.seq);
            assert_eq!(event.read_at, modelled.read_at, "{event:?}");
            assert_eq!(
                event.archived_at.is_some(),
                modelled.is_archived,
                "{event:?}"
            );
        }
        assert_eq!(page.events.len(), model.events.len());
        for (archived, unread) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut query = InboxQuery::default().with_limit(3);
            if archived {
                query = query.with_archived_only();
            }
            if unread {
                query = query.with_unread_only();
            }
            let mut listed = Vec::new();
            loop {
                let page = store.inbox(name, &query).await.unwrap();
                assert_eq!((page.unread, page.unseen), model.counts());
                assert_eq!(page.cursor, head.top());
                listed.extend(page.events.iter().map(|event| event.id.seq));
                match page.next {
                    Some(next) => query = query.with_cursor(next),
                    None => break,
                }
            }
            assert_eq!(
                listed,
                model.listed(archived, unread),
                "{archived} {unread}"
            );
        }
    }
}

/// A time after all that were given before, with nothing stored in between.
fn next_microsecond() -> Timestamp {
    let micro = || Timestamp::now().as_microsecond();
    let next = micro() + 1;
    while micro() < next {
        std::hint::spin_loop();
    }
    Timestamp::from_microsecond(next).unwrap()
}

/// Takes the steps, and looks after each of them.
async fn follow(steps: &[Step], first: &dyn Store, second: &dyn Store, look: impl AsyncFn()) {
    let mut world = World::new(first, second, fastrand::u64(..));
    for step in steps {
        world.take(step).await;
        look().await;
    }
}

/// The runs of archived events that a file has, and those that its events make.
const RUNS_ON_SQLITE: &str = "
    SELECT (SELECT group_concat(key || '-' || last) FROM (SELECT * FROM notify_archived ORDER BY key)),
        (SELECT group_concat(first || '-' || last) FROM (
            SELECT min(key) AS first, max(key) AS last FROM (
                SELECT key, key - row_number() OVER (ORDER BY key) AS run
                FROM notify_state WHERE archived_at IS NOT NULL)
            GROUP BY run ORDER BY run))";

const RUNS_ON_POSTGRES: &str = "
    SELECT (SELECT string_agg(log || ':' || first_seq || '-' || last_seq, ',' ORDER BY log, first_seq)
            FROM tidings_notify_archived),
        (SELECT string_agg(log || ':' || first || '-' || last, ',' ORDER BY log, first) FROM (
            SELECT log, min(seq) AS first, max(seq) AS last FROM (
                SELECT log, seq, seq - row_number() OVER (PARTITION BY log ORDER BY seq) AS run
                FROM tidings_notify_state WHERE archived_at IS NOT NULL) AS archived
            GROUP BY log, run) AS runs)";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn block_on(work: impl Future<Output = ()>) {
    runtime().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_inbox_in_memory_is_that_of_the_model(steps in steps()) {
        let store = MemoryStore::new();
        block_on(follow(&steps, &store, &store, async || {}));
    }
}

async fn follow_on_sqlite(steps: &[Step]) {
    let (first, folder) = fresh_sqlite().await;
    let database = open_sqlite(&folder);
    let second = SqliteStore::open(database.clone(), SqliteOptions::default());
    let runs = async || {
        let runs = database.read::<[Option<String>; 2], tidings_sqlite::Error, _>(|connection| {
            let both = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?]);
            Ok(connection.query_row(RUNS_ON_SQLITE, [], both)?)
        });
        let [kept, made] = runs.await.unwrap();
        assert_eq!(kept, made);
    };
    follow(steps, &first, &second.await.unwrap(), runs).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_inbox_on_sqlite_is_that_of_the_model(steps in steps()) {
        block_on(follow_on_sqlite(&steps));
    }

    #[test]
    fn the_archive_on_sqlite_is_that_of_the_model(steps in steps_of_archive()) {
        block_on(follow_on_sqlite(&steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_inbox_on_redis_is_that_of_the_model(steps in steps()) {
        block_on(async {
            let prefix = crate::redis::prefix();
            let [first, second] = [&prefix, &prefix].map(|prefix| crate::redis::open(prefix));
            follow(&steps, &first.await, &second.await, async || {}).await;
        });
    }
}

#[test]
fn the_inbox_on_postgres_is_that_of_the_model() {
    follow_on_postgres(&steps());
}

#[test]
fn the_archive_on_postgres_is_that_of_the_model() {
    follow_on_postgres(&steps_of_archive());
}

/// All histories share a schema, and each has users of its own.
fn follow_on_postgres(steps: &impl Strategy<Value = Vec<Step>>) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 12,
        source_file: Some(file!()),
        ..ProptestConfig::default()
    });
    let runtime = runtime();
    let (schema, first, second, client) = runtime.block_on(async {
        let schema = Schema::create().await;
        let [first, second] = [schema.store().await, schema.store().await];
        let client = connect(&schema.url()).await;
        (schema, first, second, client)
    });
    let runs = async || {
        let row = client.query_one(RUNS_ON_POSTGRES, &[]).await.unwrap();
        let [kept, made]: [Option<String>; 2] = [row.get(0), row.get(1)];
        assert_eq!(kept, made);
    };
    runner
        .run(steps, |steps| {
            runtime.block_on(follow(&steps, &first, &second, &runs));
            Ok(())
        })
        .unwrap();
    drop((first, second, client));
    // Its connections end with the runtime.
    drop(runtime);
    drop(schema);
}
