//! The contract of the storage, one function per behaviour, over two handles of one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tidings::signing::Secret;
use tidings_notify::{Draft, Event, EventType, Payload, UserId};
use tidings_webhooks::{
    Delivery, DeliveryQuery, EndpointSettings, NewEndpoint, Options, Owner, Replay, STREAM,
    Webhooks,
};

use super::{
    Accept, Accepted, Change, Changed, Keep, KeptResponse, NewResponse, Storage, StorageError,
    StoredKey, Turn,
};
use crate::idempotency::{IdempotencyKey, Once};
use crate::{Scope, Scopes};

/// Two handles of one new database.
pub(super) struct Handles {
    pub(super) first: Storage,
    pub(super) second: Storage,
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn draft(name: &str, n: u64) -> Draft {
    let payload = Payload::from_value(&n).unwrap();
    Draft::new(user(name), EventType::new("count").unwrap(), payload)
}

fn plain(drafts: Vec<Draft>) -> Accept {
    Accept { drafts, once: None }
}

fn once(drafts: Vec<Draft>, key: &str, body: &str) -> Accept {
    let key = IdempotencyKey::new(key).unwrap();
    Accept {
        drafts,
        once: Some(Once::new(key, "/v1/notifications", body.as_bytes())),
    }
}

async fn stored(storage: &Storage, accept: Accept) -> Vec<Event> {
    match storage.records.accept(accept).await.unwrap() {
        Accepted::Stored { events, .. } => events,
        other => panic!("expected stored notifications, got {other:?}"),
    }
}

async fn top(storage: &Storage, name: &str) -> u64 {
    storage.logs.head(&user(name)).await.unwrap().top_seq
}

pub(super) async fn what_is_accepted_is_in_the_logs_of_every_handle(handles: Handles) {
    let drafts = vec![draft("anna", 1), draft("ben", 2), draft("anna", 3)];
    let events = stored(&handles.first, plain(drafts)).await;
    let seqs: Vec<_> = events.iter().map(|event| event.id.seq).collect();
    assert_eq!(seqs, [1, 1, 2]);
    let head = handles.second.logs.head(&user("anna")).await.unwrap();
    assert_eq!((head.top_seq, head.unread), (2, 2));
    let page = handles
        .second
        .logs
        .read(&user("anna"), 0, 10)
        .await
        .unwrap();
    assert_eq!(page.events, [events[0].clone(), events[2].clone()]);
}

pub(super) async fn a_repeat_returns_the_first_result_and_stores_nothing(handles: Handles) {
    let drafts = || vec![draft("anna", 1), draft("ben", 2)];
    let first = stored(&handles.first, once(drafts(), "key", "body")).await;
    let read = tidings_notify::InboxAction::ReadAll;
    let logs = &handles.first.logs;
    logs.change(&user("anna"), &read, Timestamp::now())
        .await
        .unwrap();
    let repeat = once(drafts(), "key", "body");
    let repeated = handles.second.records.accept(repeat).await.unwrap();
    assert_eq!(repeated, Accepted::Repeated(first));
    assert_eq!(top(&handles.second, "anna").await, 1);
}

pub(super) async fn another_request_under_a_used_key_conflicts_and_stores_nothing(
    handles: Handles,
) {
    stored(&handles.first, once(vec![draft("anna", 1)], "key", "body")).await;
    let other = once(vec![draft("anna", 2)], "key", "other");
    let conflict = handles.second.records.accept(other).await.unwrap();
    assert_eq!(conflict, Accepted::Conflict);
    assert_eq!(top(&handles.second, "anna").await, 1);
    stored(
        &handles.second,
        once(vec![draft("anna", 2)], "other", "other"),
    )
    .await;
}

pub(super) async fn concurrent_repeats_store_one(handles: Handles) {
    let accept = |n: usize| {
        let storage = if n.is_multiple_of(2) {
            &handles.first
        } else {
            &handles.second
        };
        let accept = once(vec![draft("anna", 1)], "key", "body");
        async move { storage.records.accept(accept).await.unwrap() }
    };
    let results = futures_util::future::join_all((0..20).map(accept)).await;
    let is_stored = |accepted: &&Accepted| matches!(accepted, Accepted::Stored { .. });
    assert_eq!(results.iter().filter(is_stored).count(), 1);
    assert!(
        results
            .iter()
            .all(|accepted| *accepted != Accepted::Conflict)
    );
    assert_eq!(top(&handles.first, "anna").await, 1);
}

/// A pure inbox pays nothing for webhooks; otherwise there is one message, whatever the number of
/// endpoints.
pub(super) async fn webhooks_cost_one_message_and_none_without_endpoints(handles: Handles) {
    let messages = async |storage: &Storage| {
        // PostgreSQL moves committed messages into their stream in a moment.
        let name = storage.streams.name(STREAM).unwrap();
        storage.streams.wake(&name);
        storage.streams.stats(STREAM).await.unwrap().messages
    };
    let accepted = handles.first.records.accept(plain(vec![draft("anna", 1)]));
    let Accepted::Stored { has_webhooks, .. } = accepted.await.unwrap() else {
        panic!("expected stored notifications")
    };
    assert!(!has_webhooks);
    assert_eq!(messages(&handles.second).await, 0);

    let webhooks = handles.second.webhooks.as_ref();
    for n in 1..=20 {
        webhooks
            .insert_endpoint(endpoint(n), None, None)
            .await
            .unwrap();
    }
    let drafts = (0..100).map(|n| draft("anna", n)).collect();
    let accepted = handles.first.records.accept(plain(drafts)).await.unwrap();
    let Accepted::Stored { has_webhooks, .. } = accepted else {
        panic!("expected stored notifications")
    };
    assert!(has_webhooks);
    while messages(&handles.second).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(messages(&handles.second).await, 1);
    // The endpoints have not been read, or they would have been found unreadable.
    assert_eq!(webhooks.count_pending().await.unwrap(), 0);
}

/// An endpoint of the operator whose settings and secrets cannot be read.
fn endpoint(n: i64) -> tidings_webhooks::store::StoredEndpoint {
    tidings_webhooks::store::StoredEndpoint {
        id: tidings_webhooks::EndpointId::from_i64(n),
        owner: tidings_webhooks::Owner::Operator,
        settings: "unreadable".to_owned(),
        event_types: "[]".to_owned(),
        secrets: "unreadable".to_owned(),
        first_wait: None,
        disabled: None,
        removed: false,
        revision: 1,
        created_at: Timestamp::now(),
    }
}

async fn webhooks(storage: &Storage) -> Webhooks {
    let (store, streams) = (storage.webhooks.clone(), storage.streams.clone());
    let webhooks = Webhooks::start(store, streams, Options::default()).await;
    webhooks.unwrap()
}

/// An endpoint of the user, who may have one.
async fn new_endpoint(storage: &Storage, name: &str) -> Change {
    let owner = Owner::User(user(name));
    let new = NewEndpoint::new(owner, EndpointSettings::new("https://example.com/"));
    let webhooks = webhooks(storage).await;
    let endpoint = webhooks.prepare_endpoint(new.with_limit(1)).await;
    Change::CreateEndpoint(endpoint.unwrap().into())
}

/// Keeps this response.
fn keep(once: Once, response: &'static str) -> Keep {
    let respond = Arc::new(move |_: Option<&Delivery>| Ok(response.to_owned()));
    Keep { once, respond }
}

async fn change(storage: &Storage, change: &Change, keep: impl Into<Option<Keep>>) -> Changed {
    let changed = storage.records.change(change.clone(), keep.into());
    changed.await.unwrap()
}

fn repeated(response: &str) -> Changed {
    Changed::Repeated(response.to_owned())
}

async fn endpoints(storage: &Storage, name: &str) -> usize {
    let owner = Owner::User(user(name));
    storage.webhooks.endpoints(&owner).await.unwrap().len()
}

fn other_route(body: &str) -> Once {
    let key = IdempotencyKey::new("key").unwrap();
    Once::new(key, "/v1/users/anna/endpoints", body.as_bytes())
}

pub(super) async fn an_endpoint_is_made_once_and_its_response_repeated(handles: Handles) {
    let (first, second) = (&handles.first, &handles.second);
    let once = || other_route("body");
    let new = new_endpoint(first, "anna").await;
    let made = change(first, &new, keep(once(), "the first")).await;
    assert_eq!(made, Changed::Made(None));
    let again = new_endpoint(second, "anna").await;
    let changed = change(second, &again, keep(once(), "the second")).await;
    assert_eq!(changed, repeated("the first"));
    assert_eq!(endpoints(second, "anna").await, 1);
}

pub(super) async fn an_earlier_request_is_found_without_storing_anything(handles: Handles) {
    let (first, second) = (&handles.first.requests, &handles.second.requests);
    let request = |body| once(vec![draft("anna", 1)], "key", body);
    assert_eq!(first.earlier(request("body")).await.unwrap(), None);
    let plain = plain(vec![draft("anna", 1)]);
    assert_eq!(first.earlier(plain).await.unwrap(), None);
    let events = stored(&handles.first, request("body")).await;
    let found = second.earlier(request("body")).await.unwrap();
    assert_eq!(found, Some(Accepted::Repeated(events)));
    let found = second.earlier(request("other")).await.unwrap();
    assert_eq!(found, Some(Accepted::Conflict));
    assert_eq!(top(&handles.second, "anna").await, 1);
}

pub(super) async fn an_api_key_is_made_once_and_its_response_repeated(handles: Handles) {
    let (first, second) = (&handles.first, &handles.second);
    let new = |name| Change::CreateKey {
        key: api_key(name, None),
        limit: 1,
    };
    let once = || other_route("body");
    let early = first.requests.earlier_change(&once()).await.unwrap();
    assert_eq!(early, None);
    let made = change(first, &new("one"), keep(once(), "the first")).await;
    assert_eq!(made, Changed::Made(None));
    let again = change(second, &new("two"), keep(once(), "the second")).await;
    assert_eq!(again, repeated("the first"));
    let late = second.requests.earlier_change(&once()).await.unwrap();
    assert_eq!(late, Some(repeated("the first")));
    let other = change(second, &new("two"), keep(other_route("other"), "x")).await;
    assert_eq!(other, Changed::Conflict);
    let late = second.requests.earlier_change(&other_route("other")).await;
    assert_eq!(late.unwrap(), Some(Changed::Conflict));
    // One too many leaves its key unused.
    let unused = IdempotencyKey::new("another").unwrap();
    let unused = Once::new(unused, "/v1/keys", b"body");
    let refused = change(second, &new("two"), keep(unused.clone(), "x")).await;
    assert_eq!(refused, Changed::TooMany { limit: 1 });
    let late = second.requests.earlier_change(&unused).await.unwrap();
    assert_eq!(late, None);
    let names = keys(second).await.into_iter().map(|key| key.name);
    assert_eq!(names.collect::<Vec<_>>(), ["one"]);
}

pub(super) async fn an_operation_is_done_once_with_its_response(handles: Handles) {
    let (first, second) = (&handles.first, &handles.second);
    let (webhooks, others) = (webhooks(first).await, webhooks(second).await);
    let owner = Owner::User(user("anna"));
    let new = NewEndpoint::new(owner, EndpointSettings::new("https://example.com/"));
    let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
    let test = async |webhooks: &Webhooks| {
        let test = webhooks.prepare_test(endpoint.id).await.unwrap();
        Change::Operate(test.unwrap())
    };
    let keep = |key: &str| {
        let once = Once::new(IdempotencyKey::new(key).unwrap(), "test", b"");
        let respond = |delivery: Option<&Delivery>| Ok(delivery.unwrap().id.to_string());
        let respond = Arc::new(respond);
        Keep { once, respond }
    };
    let Changed::Made(Some(delivery)) = change(first, &test(&webhooks).await, keep("test")).await
    else {
        panic!("a test has a delivery");
    };
    assert_eq!(delivery.endpoint_id, endpoint.id);
    let again = change(second, &test(&others).await, keep("test")).await;
    assert_eq!(again, repeated(&delivery.id.to_string()));
    let all = others.deliveries(&DeliveryQuery::newest(10)).await.unwrap();
    assert_eq!(all.len(), 1);

    // In one transaction or not at all: a response that cannot be made undoes what it is about.
    let broken = |_: Option<&Delivery>| Err(StorageError::failed("a test"));
    let broken = Keep {
        respond: Arc::new(broken),
        ..keep("broken")
    };
    let failed = first.records.change(test(&webhooks).await, Some(broken));
    failed.await.unwrap_err();
    let all = others.deliveries(&DeliveryQuery::newest(10)).await.unwrap();
    assert_eq!(all.len(), 1);

    let retry = Change::Operate(webhooks.prepare_retry(delivery.id));
    let Changed::Made(Some(retried)) = change(first, &retry, keep("retry")).await else {
        panic!("a retry has a delivery");
    };
    assert_eq!(retried.id, delivery.id);
    let since = Timestamp::now() - Duration::from_secs(60);
    let replay = async || {
        let replay = webhooks.prepare_replay(endpoint.id, Replay::since(since));
        Change::Operate(replay.await.unwrap())
    };
    let replayed = change(
        first,
        &replay().await,
        self::keep(other_route("replay"), ""),
    )
    .await;
    assert_eq!(replayed, Changed::Made(None));

    let rotate = async || {
        let secret = Secret::generate();
        let rotation = webhooks.prepare_rotation(endpoint.id, secret, Duration::ZERO);
        Change::Operate(rotation.await.unwrap().unwrap())
    };
    let (rotated, late) = (rotate().await, rotate().await);
    let made = change(second, &rotated, None::<Keep>).await;
    assert_eq!(made, Changed::Made(None));
    // Another rotation was faster.
    let contended = change(first, &late, keep("rotate")).await;
    assert_eq!(contended, Changed::Contended);

    // What is refused leaves its key unused.
    let (test, retry) = (test(&webhooks).await, retry);
    webhooks
        .disable_endpoint(endpoint.id, "a test")
        .await
        .unwrap();
    for refused in [retry, replay().await] {
        let changed = change(second, &refused, keep("refused")).await;
        assert_eq!(changed, Changed::Refused);
    }
    let later = change(first, &test, keep("refused")).await;
    assert!(matches!(later, Changed::Made(Some(_))), "{later:?}");
}

pub(super) async fn of_equal_changes_at_the_same_time_one_is_made(handles: Handles) {
    let webhooks = webhooks(&handles.first).await;
    let owner = Owner::User(user("anna"));
    let new = NewEndpoint::new(owner, EndpointSettings::new("https://example.com/"));
    let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
    let changes = (0..20).map(|n: usize| {
        let handle = if n.is_multiple_of(2) {
            &handles.first
        } else {
            &handles.second
        };
        let webhooks = &webhooks;
        async move {
            let test = webhooks.prepare_test(endpoint.id).await.unwrap().unwrap();
            change(
                handle,
                &Change::Operate(test),
                keep(other_route("body"), "x"),
            )
            .await
        }
    });
    let outcomes = futures_util::future::join_all(changes).await;
    let made = outcomes.iter().filter(|it| matches!(it, Changed::Made(_)));
    assert_eq!(made.count(), 1);
    let others = outcomes.iter().filter(|it| !matches!(it, Changed::Made(_)));
    let is_expected = |it: &Changed| *it == Changed::Running || *it == repeated("x");
    assert!(others.into_iter().all(is_expected), "{outcomes:?}");
    let all = webhooks.deliveries(&DeliveryQuery::newest(100)).await;
    assert_eq!(all.unwrap().len(), 1);
}

pub(super) async fn kept_responses_are_listed_and_replaced_if_they_are_what_they_were(
    handles: Handles,
) {
    let (first, second) = (&handles.first.requests, &handles.second.requests);
    stored(&handles.first, once(vec![draft("anna", 1)], "a", "body")).await;
    let keys = ["b", "c"].map(|key| IdempotencyKey::new(key).unwrap());
    for (key, name) in keys.into_iter().zip(["anna", "ben"]) {
        let once = Once::new(key, "/v1/route", b"body");
        let new = new_endpoint(&handles.first, name).await;
        change(&handles.first, &new, keep(once, "plain")).await;
    }
    let kept = |key: &str, response: Option<&str>| KeptResponse {
        key: key.to_owned(),
        response: response.map(str::to_owned),
    };
    let all = [
        kept("a", None),
        kept("b", Some("plain")),
        kept("c", Some("plain")),
    ];
    assert_eq!(second.responses("").await.unwrap(), all);
    assert_eq!(second.responses("b").await.unwrap(), all[2..]);
    let change = |key: &str, old: &str| NewResponse {
        key: key.to_owned(),
        old: old.to_owned(),
        new: "sealed".to_owned(),
    };
    let changes = vec![change("b", "plain"), change("c", "another")];
    second.replace_responses(changes).await.unwrap();
    let all = [kept("b", Some("sealed")), kept("c", Some("plain"))];
    assert_eq!(first.responses("a").await.unwrap(), all);
}

pub(super) async fn keys_are_shared_by_all_operations(handles: Handles) {
    stored(&handles.first, once(vec![draft("anna", 1)], "key", "body")).await;
    let new = new_endpoint(&handles.second, "anna").await;
    let conflict = change(&handles.second, &new, keep(other_route("body"), "x")).await;
    assert_eq!(conflict, Changed::Conflict);
    assert_eq!(endpoints(&handles.first, "anna").await, 0);
    // Nor do notifications take the key of a change for theirs.
    let key = IdempotencyKey::new("another").unwrap();
    let other = Once::new(key, "/v1/users/anna/endpoints", b"body");
    let made = change(&handles.second, &new, keep(other, "x")).await;
    assert_eq!(made, Changed::Made(None));
    let accept = once(vec![draft("anna", 1)], "another", "body");
    let conflict = handles.first.records.accept(accept).await.unwrap();
    assert_eq!(conflict, Accepted::Conflict);
}

pub(super) async fn an_endpoint_too_many_leaves_its_key_unused(handles: Handles) {
    let plain = new_endpoint(&handles.first, "anna").await;
    let made = change(&handles.first, &plain, None::<Keep>).await;
    assert_eq!(made, Changed::Made(None));
    let more = new_endpoint(&handles.second, "anna").await;
    let refused = change(&handles.second, &more, keep(other_route("body"), "x")).await;
    assert_eq!(refused, Changed::TooMany { limit: 1 });
    assert_eq!(endpoints(&handles.first, "anna").await, 1);
    stored(&handles.first, once(vec![draft("anna", 1)], "key", "body")).await;
}

pub(super) async fn old_keys_are_cleaned_and_young_ones_kept(handles: Handles) {
    stored(&handles.first, once(vec![draft("anna", 1)], "key", "body")).await;
    assert_eq!(handles.second.records.clean().await.unwrap(), 0);
    let repeat = once(vec![draft("anna", 1)], "key", "body");
    let repeated = handles.second.records.accept(repeat).await.unwrap();
    assert!(matches!(repeated, Accepted::Repeated(_)));
}

/// For databases that several instances share.
pub(super) async fn work_of_one_instance_is_done_by_one_at_a_time(handles: Handles) {
    let turn = |instance, length| Turn {
        work: "housekeeping",
        instance,
        length,
    };
    let hour = Duration::from_secs(3600);
    let first = handles.first.records.as_ref();
    let second = handles.second.records.as_ref();
    assert!(first.take_turn(&turn("a", hour)).await.unwrap());
    // Again by the same instance, which may have another handle.
    assert!(first.take_turn(&turn("a", hour)).await.unwrap());
    assert!(!second.take_turn(&turn("b", hour)).await.unwrap());
    let other = Turn {
        work: "other work",
        ..turn("b", hour)
    };
    assert!(second.take_turn(&other).await.unwrap());
    // An instance that has crashed leaves its turn to the others when its time is over.
    assert!(first.take_turn(&turn("a", Duration::ZERO)).await.unwrap());
    assert!(second.take_turn(&turn("b", hour)).await.unwrap());
}

pub(super) fn api_key(name: &str, expires_at: Option<Timestamp>) -> StoredKey {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let now = Timestamp::now().as_microsecond();
    StoredKey {
        id: format!("key_{number:016x}"),
        name: name.to_owned(),
        digest: Sha256::digest(number.to_be_bytes()).into(),
        prefix: "tk_1234".to_owned(),
        scopes: Scopes::new(vec![Scope::Publish, Scope::Admin]).unwrap(),
        created_at: Timestamp::from_microsecond(now).unwrap(),
        expires_at,
        last_used_at: None,
    }
}

async fn create_key(handle: &Storage, key: &StoredKey, limit: u32) -> bool {
    let key = key.clone();
    let new = Change::CreateKey { key, limit };
    change(handle, &new, None::<Keep>).await == Changed::Made(None)
}

async fn keys(handle: &Storage) -> Vec<StoredKey> {
    let all = handle.api_keys.all().await.unwrap();
    assert_eq!(all.unreadable, [""; 0]);
    all.keys
}

pub(super) async fn keys_are_listed_on_every_handle_until_they_are_removed(handles: Handles) {
    let (first, second) = (&handles.first, &handles.second);
    assert_eq!(keys(second).await, []);
    let future = "2099-01-01T00:00:00.123456Z".parse().unwrap();
    let (one, two) = (
        api_key("o'ne \"\u{e9}\"", None),
        api_key("two", Some(future)),
    );
    assert!(create_key(first, &one, 10).await);
    assert!(create_key(second, &two, 10).await);
    assert_eq!(keys(first).await, [one.clone(), two.clone()]);
    assert_eq!(keys(second).await, [one.clone(), two.clone()]);
    assert!(second.api_keys.remove(&one.id).await.unwrap());
    assert!(!first.api_keys.remove(&one.id).await.unwrap());
    assert_eq!(keys(first).await, [two]);
}

pub(super) async fn there_are_at_most_so_many_keys(handles: Handles) {
    let handle = &handles.first;
    let (one, two) = (api_key("one", None), api_key("two", None));
    assert!(!create_key(handle, &one, 0).await);
    assert!(create_key(handle, &one, 1).await);
    assert!(!create_key(handle, &two, 1).await);
    assert_eq!(keys(handle).await, [one]);
}

pub(super) async fn expired_keys_leave_room_for_others_and_are_forgotten(handles: Handles) {
    let (first, second) = (&handles.first, &handles.second);
    let at = |second| Timestamp::from_second(second).unwrap();
    let old = [100, 300, 200].map(|second| api_key("old", Some(at(second))));
    for key in &old {
        assert!(create_key(first, key, 2).await, "the others have expired");
    }
    let new = api_key("new", None);
    assert!(create_key(second, &new, 1).await);
    let ids = |keys: Vec<StoredKey>| {
        let mut ids: Vec<_> = keys.into_iter().map(|key| key.id).collect();
        ids.sort_unstable();
        ids
    };
    let [_, last, _] = old;
    let left = ids(vec![last.clone(), new.clone()]);
    assert_eq!(ids(keys(first).await), left, "as many stay as may be valid");
    first.api_keys.remove_expired(at(300)).await.unwrap();
    assert_eq!(ids(keys(first).await), left);
    first.api_keys.remove_expired(at(301)).await.unwrap();
    assert_eq!(keys(second).await, [new]);
}

pub(super) async fn the_latest_use_of_a_key_is_kept(handles: Handles) {
    let (one, two) = (api_key("one", None), api_key("two", None));
    for key in [&one, &two] {
        assert!(create_key(&handles.first, key, 10).await);
    }
    let at = |second| Timestamp::from_second(second).unwrap();
    let uses = [(one.id.clone(), at(200)), ("key_gone".to_owned(), at(200))];
    handles.first.api_keys.record_use(&uses).await.unwrap();
    let earlier = [(one.id.clone(), at(100)), (two.id.clone(), at(100))];
    handles.second.api_keys.record_use(&earlier).await.unwrap();
    let stored = keys(&handles.first).await;
    let stored: Vec<_> = stored.iter().map(|key| key.last_used_at).collect();
    assert_eq!(stored, [Some(at(200)), Some(at(100))]);
}

pub(super) async fn a_closed_storage_refuses(handles: Handles) {
    handles.first.records.ready().await.unwrap();
    handles.second.records.ready().await.unwrap();
    handles.first.close().await;
    handles.first.close().await;
    let refused = handles.first.records.accept(plain(vec![draft("anna", 1)]));
    assert!(matches!(refused.await, Err(StorageError::Closed)));
    let refused = handles.first.records.ready().await;
    assert!(matches!(refused, Err(StorageError::Closed)));
    let refused = handles.first.api_keys.all().await;
    assert!(matches!(refused, Err(StorageError::Closed)));
}

/// Makes one test of each behaviour, and of those that are named beside.
macro_rules! suite {
    ($open:expr $(, $also:ident)*) => {
        $crate::conformance::suite!($open =>
            $($also,)*
            what_is_accepted_is_in_the_logs_of_every_handle,
            a_repeat_returns_the_first_result_and_stores_nothing,
            another_request_under_a_used_key_conflicts_and_stores_nothing,
            concurrent_repeats_store_one,
            webhooks_cost_one_message_and_none_without_endpoints,
            an_endpoint_is_made_once_and_its_response_repeated,
            an_earlier_request_is_found_without_storing_anything,
            an_api_key_is_made_once_and_its_response_repeated,
            an_operation_is_done_once_with_its_response,
            of_equal_changes_at_the_same_time_one_is_made,
            kept_responses_are_listed_and_replaced_if_they_are_what_they_were,
            keys_are_shared_by_all_operations,
            an_endpoint_too_many_leaves_its_key_unused,
            old_keys_are_cleaned_and_young_ones_kept,
            keys_are_listed_on_every_handle_until_they_are_removed,
            there_are_at_most_so_many_keys,
            expired_keys_leave_room_for_others_and_are_forgotten,
            the_latest_use_of_a_key_is_kept,
            a_closed_storage_refuses,
        );
    };
    ($open:expr => $($behaviour:ident,)+) => {
        $(#[tokio::test]
        async fn $behaviour() {
            let (_kept, handles) = $open.await;
            $crate::conformance::$behaviour(handles).await;
        })+
    };
}
pub(super) use suite;
