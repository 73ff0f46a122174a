use std::sync::Mutex;
use std::time::Duration;

use super::cache::{MAX_NAMES, NEGATIVE_TTL, POSITIVE_TTL};
use super::*;

const INNER: &str = "10.0.0.1";
const PUBLIC: &str = "1.1.1.1";

fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
    let socket = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
    addresses.iter().map(socket).collect()
}

/// Gives its answers in turn, the last one for ever, each when the semaphore lets it.
struct Scripted {
    answers: Mutex<Vec<Vec<SocketAddr>>>,
    asked: Mutex<Vec<String>>,
    released: Arc<Semaphore>,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let mut answers: Vec<_> = answers.iter().map(|answer| sockets(answer)).collect();
        answers.reverse();
        Arc::new(Self {
            answers: Mutex::new(answers),
            asked: Mutex::default(),
            released: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Resolve for Scripted {
    fn resolve(&self, name: Name) -> Resolving {
        self.asked.lock().unwrap().push(name.as_str().to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = match &answers[..] {
            [last] => last.clone(),
            _ => answers.pop().unwrap(),
        };
        let released = Arc::clone(&self.released);
        Box::pin(async move {
            released.acquire().await?.forget();
            Ok(Box::new(answer.into_iter()) as Addrs)
        })
    }
}

fn guarded(policy: AddressPolicy, lookup: &Arc<Scripted>) -> GuardedResolver {
    GuardedResolver::new(policy, Arc::clone(lookup) as Arc<dyn Resolve>)
}

async fn look_up(resolver: &GuardedResolver, name: &str) -> Result<Vec<SocketAddr>, String> {
    match resolver.clone().call(name.parse().unwrap()).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => match error.downcast_ref::<BlockedAddress>() {
            Some(blocked) => Err(blocked.address().to_string()),
            None => Err(std::error::Error::source(&*error).unwrap().to_string()),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_believed_for_its_time_and_no_longer() {
    let lookup = Scripted::new(&[&[PUBLIC], &["1.0.0.1"]]);
    let resolver = guarded(AddressPolicy::Any, &lookup);
    for _ in 0..3 {
        assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    }
    let nearly = POSITIVE_TTL.saturating_sub(Duration::from_millis(1));
    tokio::time::advance(nearly).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    assert_eq!(lookup.asked(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&["1.0.0.1"])));
    assert_eq!(lookup.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_believed_for_less_than_half_a_minute() {
    let lookup = Scripted::new(&[&[], &[PUBLIC]]);
    let resolver = guarded(AddressPolicy::Any, &lookup);
    let none = Err("the name has no address".to_owned());
    assert_eq!(look_up(&resolver, "a").await, none);
    assert_eq!(look_up(&resolver, "a").await, none);
    assert_eq!(lookup.asked(), 1);
    assert!(NEGATIVE_TTL <= Duration::from_secs(30));
    tokio::time::advance(NEGATIVE_TTL).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_changes_is_vetted_each_time() {
    let lookup = Scripted::new(&[&[PUBLIC], &[INNER], &[PUBLIC, INNER]]);
    let resolver = guarded(AddressPolicy::PublicOnly, &lookup);
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
    tokio::time::advance(POSITIVE_TTL).await;
    assert_eq!(look_up(&resolver, "a").await, Err(INNER.to_owned()));
    // What is refused is in the cache, and refused again.
    assert_eq!(look_up(&resolver, "a").await, Err(INNER.to_owned()));
    assert_eq!(lookup.asked(), 2);
    tokio::time::advance(POSITIVE_TTL).await;
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[tokio::test]
async fn names_are_looked_up_at_once_but_each_by_one_alone() {
    let lookup = Scripted::new(&[&[PUBLIC]]);
    lookup.released.forget_permits(usize::MAX);
    let resolver = guarded(AddressPolicy::Any, &lookup);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..100 {
        let resolver = resolver.clone();
        let name = if number % 2 == 0 { "even" } else { "odd" };
        waiting.spawn(async move { look_up(&resolver, name).await });
    }
    while lookup.asked() < 2 {
        tokio::task::yield_now().await;
    }
    lookup.released.add_permits(2);
    for found in waiting.join_all().await {
        assert_eq!(found, Ok(sockets(&[PUBLIC])));
    }
    assert_eq!(lookup.asked(), 2);
    assert_eq!(resolver.cache.sizes(), (2, 0));
}

#[tokio::test]
async fn whoever_gives_up_leaves_the_lookup_to_the_next() {
    let lookup = Scripted::new(&[&[PUBLIC]]);
    lookup.released.forget_permits(usize::MAX);
    let resolver = guarded(AddressPolicy::Any, &lookup);
    let first = tokio::spawn({
        let resolver = resolver.clone();
        async move { look_up(&resolver, "a").await }
    });
    while lookup.asked() < 1 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(resolver.cache.sizes(), (0, 0));
    lookup.released.add_permits(1);
    assert_eq!(look_up(&resolver, "a").await, Ok(sockets(&[PUBLIC])));
}

#[tokio::test(start_paused = true)]
async fn the_cache_has_an_end_and_the_oldest_goes_first() {
    let lookup = Scripted::new(&[&[PUBLIC]]);
    let resolver = guarded(AddressPolicy::Any, &lookup);
    for number in 0..=MAX_NAMES {
        look_up(&resolver, &format!("name-{number}")).await.unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(resolver.cache.sizes(), (MAX_NAMES, 0));
    let asked = lookup.asked();
    look_up(&resolver, "name-1").await.unwrap();
    assert_eq!(lookup.asked(), asked);
    look_up(&resolver, "name-0").await.unwrap();
    assert_eq!(lookup.asked(), asked + 1);
}

#[tokio::test]
async fn a_name_that_is_forgotten_is_looked_up_again() {
    let lookup = Scripted::new(&[&[INNER], &[PUBLIC]]);
    let resolver = guarded(AddressPolicy::Any, &lookup);
    assert_eq!(
        look_up(&resolver, "example.com").await,
        Ok(sockets(&[INNER]))
    );
    resolver.forget(&"http://example.com:8080/x".parse().unwrap());
    assert_eq!(
        look_up(&resolver, "example.com").await,
        Ok(sockets(&[PUBLIC]))
    );
}

#[test]
fn of_the_addresses_of_a_name_only_the_allowed_ones_are_left() {
    let policy = AddressPolicy::PublicOnly;
    let mixed = sockets(&[INNER, PUBLIC, "::1", "64:ff9b::1.1.1.1"]);
    assert_eq!(vet(policy, &mixed), Ok(sockets(&[PUBLIC])));
    let inner = sockets(&[INNER, "::1"]);
    assert_eq!(vet(policy, &inner).unwrap_err().address(), inner[0].ip());
    assert_eq!(vet(AddressPolicy::Any, &inner), Ok(inner));
    let many = sockets(&[PUBLIC; 1000]);
    assert_eq!(vet(policy, &many).unwrap().len(), MAX_ADDRESSES);
    // None of the first ones counts against the last.
    let hidden = [sockets(&[INNER; 1000]), sockets(&[PUBLIC])].concat();
    assert_eq!(vet(policy, &hidden), Ok(sockets(&[PUBLIC])));
}

#[tokio::test]
async fn the_system_knows_this_machine() {
    let system = Arc::new(SystemResolver::new());
    let resolver =
        GuardedResolver::new(AddressPolicy::Any, Arc::clone(&system) as Arc<dyn Resolve>);
    assert!(look_up(&resolver, "localhost").await.is_ok());
    assert_eq!(system.lookups.available_permits(), MAX_LOOKUPS);
    let guarded = GuardedResolver::new(AddressPolicy::PublicOnly, system);
    assert!(look_up(&guarded, "localhost").await.is_err());
}
