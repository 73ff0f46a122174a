use std::sync::Mutex;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{advance, timeout};

use super::cache::{DEFAULT_TTL, LOOKUP_TIME, MAX_NAMES, MAX_TTL, MIN_TTL, NEGATIVE_TTL};
use super::*;

const INNER: &str = "10.0.0.1";
const PUBLIC: &str = "1.1.1.1";

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
    let addresses = addresses(texts).into_iter();
    addresses
        .map(|address| SocketAddr::new(address, 0))
        .collect()
}

type Script = dyn Fn(usize) -> Result<Resolved, ResolveError> + Send + Sync;

/// Replies by a script, which gets the number of the lookup, each time the semaphore allows one.
/// Names that begin with "silent" never get a reply.
struct Scripted {
    script: Box<Script>,
    asked: Mutex<Vec<String>>,
    released: Semaphore,
    takes: Duration,
}

impl Scripted {
    fn by(
        script: impl Fn(usize) -> Result<Resolved, ResolveError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Box::new(script),
            asked: Mutex::default(),
            released: Semaphore::new(Semaphore::MAX_PERMITS),
            takes: Duration::ZERO,
        }
    }

    /// Gives these replies in turn, the last one for ever.
    fn new(replies: &[&[&str]]) -> Self {
        let replies: Vec<_> = replies.iter().map(|reply| addresses(reply)).collect();
        Self::by(move |number| {
            let reply = &replies[number.min(replies.len() - 1)];
            Ok(reply.iter().copied().collect())
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Resolve for Arc<Scripted> {
    async fn resolve(&self, name: &str) -> Result<Resolved, ResolveError> {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(name.to_owned());
            asked.len() - 1
        };
        if name.starts_with("silent") {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.takes).await;
        self.released.acquire().await.unwrap().forget();
        (self.script)(number)
    }
}

fn guarded(policy: AddressPolicy, scripted: &Arc<Scripted>) -> GuardedResolver {
    let from = LocalAddresses::default();
    GuardedResolver::new(policy, from, Arc::new(Arc::clone(scripted)))
}

async fn look_up(resolver: &GuardedResolver, name: &str) -> Result<Vec<SocketAddr>, String> {
    match resolver.clone().call(name.parse().unwrap()).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => match error.downcast_ref::<BlockedAddress>() {
            Some(blocked) => Err(blocked.to_string()),
            None => Err(error.source().unwrap().to_string()),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_are_cached_for_their_time_and_no_longer() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC], &["1.0.0.1"]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    for _ in 0..3 {
        assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    }
    advance(DEFAULT_TTL.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    assert_eq!(scripted.asked(), 1);
    advance(Duration::from_millis(1)).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&["1.0.0.1"])));
    assert_eq!(scripted.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_is_kept_within_bounds() {
    for (ttl, expected) in [
        (Duration::ZERO, MIN_TTL),
        (Duration::from_secs(7), Duration::from_secs(7)),
        (Duration::MAX, MAX_TTL),
    ] {
        let scripted = Arc::new(Scripted::by(move |_| {
            Ok(addresses(&[PUBLIC])
                .into_iter()
                .collect::<Resolved>()
                .with_ttl(ttl))
        }));
        let resolver = guarded(AddressPolicy::Any, &scripted);
        look_up(&resolver, "a").await.unwrap();
        advance(expected.saturating_sub(Duration::from_millis(1))).await;
        look_up(&resolver, "a").await.unwrap();
        assert_eq!(scripted.asked(), 1, "{ttl:?}");
        advance(Duration::from_millis(1)).await;
        look_up(&resolver, "a").await.unwrap();
        assert_eq!(scripted.asked(), 2, "{ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_cached_for_less_than_half_a_minute() {
    let scripted = Arc::new(Scripted::new(&[&[], &[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let none = Err("the name has no address".to_owned());
    assert_eq!(look_up(&resolver, "a").await, none);
    assert_eq!(look_up(&resolver, "a").await, none);
    assert_eq!(scripted.asked(), 1);
    assert!(NEGATIVE_TTL <= Duration::from_secs(30));
    advance(NEGATIVE_TTL).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[tokio::test(start_paused = true)]
async fn addresses_that_change_are_vetted_each_time() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC], &[INNER], &[PUBLIC, INNER]]));
    let resolver = guarded(AddressPolicy::PublicOnly, &scripted);
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    advance(DEFAULT_TTL).await;
    let blocked = Err(format!("the address {INNER} is not allowed"));
    assert_eq!(look_up(&resolver, "a").await, blocked);
    // What is refused is in the cache, and refused again.
    assert_eq!(look_up(&resolver, "a").await, blocked);
    assert_eq!(scripted.asked(), 2);
    advance(DEFAULT_TTL).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[tokio::test]
async fn what_is_denied_is_denied_in_every_spelling_of_an_address() {
    let policy = AddressPolicy::Any.deny("169.254.0.0/16").unwrap();
    for spelling in [
        "169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ] {
        let scripted = Arc::new(Scripted::new(&[&[spelling]]));
        let resolver = guarded(policy.clone(), &scripted);
        let address = &addresses(&[spelling])[0];
        let blocked = Err(format!("the address {address} is not allowed"));
        assert_eq!(look_up(&resolver, "a").await, blocked);
    }
}

#[tokio::test]
async fn names_are_resolved_at_once_but_each_by_one_lookup() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    scripted.released.forget_permits(usize::MAX);
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let mut waiting = JoinSet::new();
    for number in 0..100 {
        let resolver = resolver.clone();
        let name = if number % 2 == 0 { "even" } else { "odd" };
        waiting.spawn(async move { look_up(&resolver, name).await });
    }
    while scripted.asked() < 2 {
        tokio::task::yield_now().await;
    }
    scripted.released.add_permits(2);
    for found in waiting.join_all().await {
        assert_eq!(found, Ok(sockets(&[PUBLIC])));
    }
    assert_eq!(scripted.asked(), 2);
    assert_eq!(resolver.cache.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn regression_a_lookup_that_outlasts_an_attempt_serves_the_next_one() {
    let mut slow = Scripted::new(&[&[PUBLIC]]);
    slow.takes = Duration::from_secs(6);
    let scripted = Arc::new(slow);
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let attempt = || timeout(Duration::from_secs(5), look_up(&resolver, "a"));
    assert!(attempt().await.is_err());
    assert_eq!(attempt().await, Ok(Ok(sockets(&[PUBLIC]))));
    assert_eq!(attempt().await, Ok(Ok(sockets(&[PUBLIC]))));
    assert_eq!(scripted.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn regression_a_name_that_never_gets_a_reply_fails_at_once_after_its_first_lookup() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let start = Instant::now();
    while timeout(Duration::from_secs(5), look_up(&resolver, "silent"))
        .await
        .is_err()
    {}
    assert_eq!(start.elapsed(), LOOKUP_TIME);
    look_up(&resolver, "silent").await.unwrap_err();
    assert_eq!(start.elapsed(), LOOKUP_TIME);
    assert_eq!(scripted.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn regression_many_names_that_never_get_a_reply_disturb_no_other() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let mut silent = JoinSet::new();
    for number in 0..1000 {
        let resolver = resolver.clone();
        silent.spawn(async move { look_up(&resolver, &format!("silent-{number}")).await });
    }
    while scripted.asked() < 1000 {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(silent.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn silence_is_the_zone_s_while_other_names_get_replies_and_local_otherwise() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    look_up(&resolver, "before").await.unwrap();
    advance(Duration::from_secs(1)).await;
    let since = Instant::now();
    assert_eq!(resolver.kind_of_silence(since), ErrorKind::Local);
    advance(Duration::from_secs(1)).await;
    look_up(&resolver, "meanwhile").await.unwrap();
    assert_eq!(resolver.kind_of_silence(since), ErrorKind::Dns);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_a_reply_unless_no_server_replied() {
    for (is_reply, kind) in [(true, ErrorKind::Dns), (false, ErrorKind::Local)] {
        let scripted = Arc::new(Scripted::by(move |_| {
            let cause = "as the script says".into();
            Err(if is_reply {
                ResolveError::NotFound(cause)
            } else {
                ResolveError::Unavailable(cause)
            })
        }));
        let resolver = guarded(AddressPolicy::Any, &scripted);
        let since = Instant::now();
        advance(Duration::from_secs(1)).await;
        look_up(&resolver, "a").await.unwrap_err();
        assert_eq!(resolver.kind_of_silence(since), kind);
        let reply = resolver.cache.resolve("a").await;
        assert_eq!(reply.unwrap_err().silent_since().is_none(), is_reply);
    }
}

#[tokio::test]
async fn a_resolver_that_panics_fails_one_lookup() {
    let scripted = Arc::new(Scripted::by(|number| match number {
        0 => panic!("this is a test"),
        _ => Ok(addresses(&[PUBLIC]).into_iter().collect()),
    }));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let reply = resolver.cache.resolve("a").await;
    assert!(reply.unwrap_err().silent_since().is_some());
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[test]
fn a_lookup_that_ended_with_its_runtime_begins_again_in_the_next_one() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    scripted.released.forget_permits(usize::MAX);
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let first = runtime();
    first.block_on(async {
        tokio::select! {
            _ = look_up(&resolver, "a") => panic!("it is held"),
            () = async { while scripted.asked() < 1 { tokio::task::yield_now().await } } => {}
        }
    });
    drop(first);
    scripted.released.add_permits(1);
    let found = runtime().block_on(look_up(&resolver, "a"));
    assert_eq!(found, Ok(sockets(&[PUBLIC])));
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded_and_the_oldest_goes_first() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    for number in 0..=MAX_NAMES {
        look_up(&resolver, &format!("name-{number}")).await.unwrap();
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(resolver.cache.len(), MAX_NAMES);
    let asked = scripted.asked();
    look_up(&resolver, "name-1").await.unwrap();
    assert_eq!(scripted.asked(), asked);
    look_up(&resolver, "name-0").await.unwrap();
    assert_eq!(scripted.asked(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn lookups_under_way_are_bounded_too() {
    let scripted = Arc::new(Scripted::new(&[&[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    let mut silent = JoinSet::new();
    for number in 0..MAX_NAMES {
        let resolver = resolver.clone();
        silent.spawn(async move { look_up(&resolver, &format!("silent-{number}")).await });
    }
    while scripted.asked() < MAX_NAMES {
        tokio::task::yield_now().await;
    }
    let refused = look_up(&resolver, "a").await.unwrap_err();
    assert!(refused.contains("at the same time"), "{refused}");
    advance(LOOKUP_TIME).await;
    silent.join_all().await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[tokio::test]
async fn a_name_that_is_forgotten_is_resolved_again() {
    let scripted = Arc::new(Scripted::new(&[&[INNER], &[PUBLIC]]));
    let resolver = guarded(AddressPolicy::Any, &scripted);
    assert_eq!(
        look_up(&resolver, "example.com").await,
        Ok(sockets(&[INNER]))
    );
    resolver.forget("example.com");
    assert_eq!(
        look_up(&resolver, "example.com").await,
        Ok(sockets(&[PUBLIC]))
    );
}

#[test]
fn only_the_allowed_addresses_of_a_name_are_left() {
    let policy = AddressPolicy::PublicOnly;
    let mixed = addresses(&[INNER, PUBLIC, "::1", "64:ff9b::10.1.1.1"]);
    assert_eq!(vet(&policy, &mixed), Ok(sockets(&[PUBLIC])));
    let inner = addresses(&[INNER, "::1"]);
    let blocked = vet(&policy, &inner).unwrap_err();
    assert_eq!(blocked.address(), Some(inner[0]));
    assert_eq!(
        vet(&AddressPolicy::Any, &inner),
        Ok(sockets(&[INNER, "::1"]))
    );
    let many = addresses(&[PUBLIC; 1000]);
    assert_eq!(vet(&policy, &many).unwrap().len(), MAX_ADDRESSES);
    // The first ones, which are not allowed, do not count against the last.
    let hidden = [addresses(&[INNER; 1000]), addresses(&[PUBLIC])].concat();
    assert_eq!(vet(&policy, &hidden), Ok(sockets(&[PUBLIC])));
}

#[tokio::test(start_paused = true)]
async fn a_host_has_a_route_if_an_address_of_it_that_is_allowed_has_one() {
    let policy = AddressPolicy::Any.deny("127.0.0.0/8").unwrap();
    for (found, policy, expected) in [
        (&["127.0.0.1", "fe80::1"][..], AddressPolicy::Any, true),
        (&["127.0.0.1", "fe80::1"], policy, false),
        (&["fe80::1"], AddressPolicy::Any, false),
    ] {
        let resolver = guarded(policy, &Arc::new(Scripted::new(&[found])));
        look_up(&resolver, "a").await.unwrap();
        assert_eq!(resolver.has_route("a"), expected, "{found:?}");
        assert!(!resolver.has_route("[fe80::1]"));
        resolver.forget("a");
        assert!(!resolver.has_route("a"));
    }
}
