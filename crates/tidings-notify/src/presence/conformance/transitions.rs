//! What the store records for those who watch.

use std::collections::HashMap;
use std::time::Duration;

use super::support::{Handles, LONG, Writer, mark, ok, since, user, users};
use crate::presence::{Mark, Standing, Transition};

fn online(name: &str) -> Transition {
    Transition {
        user: user(name),
        is_online: true,
    }
}

fn offline(name: &str) -> Transition {
    Transition {
        user: user(name),
        is_online: false,
    }
}

/// Only these make a difference to anyone else.
pub async fn transitions_are_those_of_the_first_and_the_last_instance(handles: Handles) {
    let [one, other] = &handles;
    let mut here = Writer::new("here", LONG);
    let mut there = Writer::new("there", LONG);
    here.write(&**one, &["before"], &[]).await;
    let begun = mark(&**other).await;
    here.write(&**one, &["ann"], &[]).await;
    there.write(&**other, &["ann"], &[]).await;
    here.write(&**one, &[], &["ann"]).await;
    there.write(&**other, &[], &["nobody"]).await;
    there.write(&**other, &["bob"], &["ann"]).await;
    let mut seen = since(&**one, begun).await;
    assert_eq!(seen, since(&**other, begun).await);
    assert_eq!(seen.remove(0), online("ann"));
    // What one update does has no order.
    seen.sort_by_key(|transition| transition.is_online);
    assert_eq!(seen, [offline("ann"), online("bob")]);
}

/// A reader who was away reads on from its mark.
pub async fn transitions_come_in_pages(handles: Handles) {
    let [one, other] = &handles;
    let mut writer = Writer::new("one", LONG);
    let mut mark = mark(&**other).await;
    for name in ["1", "2", "3", "4", "5"] {
        writer.write(&**one, &[name], &[]).await;
    }
    for (names, has_more) in [
        (&["1", "2"][..], true),
        (&["3", "4"], true),
        (&["5"], false),
        (&[], false),
    ] {
        let page = ok(other.transitions(Some(mark), 2).await);
        let expected: Vec<Transition> = names.iter().map(|name| online(name)).collect();
        assert_eq!(page.transitions, expected);
        assert_eq!((page.has_more, page.is_lossy), (has_more, false));
        mark = page.mark;
    }
}

/// The largest and the smallest numbers mean as much as possible, and one.
pub async fn numbers_of_any_size_are_understood(handles: Handles) {
    let [one, other] = &handles;
    let begun = mark(&**other).await;
    let mut writer = Writer::new("one", Duration::MAX);
    writer.write(&**one, &["ann"], &[]).await;
    writer.write(&**one, &["bob"], &[]).await;
    assert_eq!(writer.beat(&**one, 2).await, Standing::Kept);
    let all = ok(other.transitions(Some(begun), usize::MAX).await);
    assert_eq!(all.transitions, [online("ann"), online("bob")]);
    let first = ok(other.transitions(Some(begun), 0).await);
    assert_eq!(first.transitions, [online("ann")]);
    assert_eq!((first.has_more, first.is_lossy), (true, false));
}

/// A store that was set back, or begun anew, says so.
pub async fn a_mark_of_another_store_is_lossy(handles: Handles) {
    let mut writer = Writer::new("one", LONG);
    writer.write(&*handles[0], &["ann"], &[]).await;
    let now = mark(&*handles[0]).await;
    for wrong in [
        Mark {
            epoch: now.epoch + 1,
            ..now
        },
        Mark {
            number: now.number + 1,
            ..now
        },
    ] {
        let page = ok(handles[1].transitions(Some(wrong), 10).await);
        assert!(page.is_lossy);
        assert_eq!((page.transitions, page.mark), (Vec::new(), now));
    }
}

/// An instance that has crashed writes nothing: others do it.
pub async fn users_of_an_ended_lease_get_their_transitions(handles: Handles) {
    let users = users(1_200);
    let [one, other] = &handles;
    let mut crashed = Writer::new("crashed", LONG);
    let mut lasting = Writer::new("lasting", LONG);
    for chunk in users.chunks(400) {
        crashed
            .write_users(&**one, chunk.to_vec(), Vec::new())
            .await;
    }
    lasting
        .write_users(&**one, users[..200].to_vec(), Vec::new())
        .await;
    let begun = mark(&**other).await;
    ok(one.end(crashed.lease.id).await);
    let mut gone: Vec<_> = since(&**other, begun).await;
    assert!(gone.iter().all(|transition| !transition.is_online));
    gone.sort_by(|a, b| a.user.cmp(&b.user));
    let gone: Vec<_> = gone.into_iter().map(|transition| transition.user).collect();
    assert_eq!(gone, users[200..]);
    assert_eq!(since(&**one, begun).await.len(), 1_000);
}

/// However instances overlap, the transitions of a user alternate and end where the user is.
pub async fn concurrent_updates_leave_alternating_transitions(handles: Handles) {
    const ROUNDS: usize = 25;
    let names: Vec<String> = (0..6).map(|n| format!("user-{n}")).collect();
    let begun = mark(&*handles[0]).await;
    let instances = (0..4).map(|number| {
        let presence = handles[number % 2].clone();
        let names = names.clone();
        tokio::spawn(async move {
            let mut writer = Writer::new("any", LONG);
            for round in 0..ROUNDS {
                // Who is here changes with the round, in another way at each instance.
                let (here, away): (Vec<_>, Vec<_>) = (0..names.len())
                    .partition(|user| (round * (number + 2) + user * 7 + number) % 3 == 0);
                let pick = |chosen: Vec<usize>| chosen.into_iter().map(|user| &*names[user]);
                let here: Vec<&str> = pick(here).collect();
                let away: Vec<&str> = pick(away).collect();
                writer.write(&*presence, &here, &away).await;
            }
        })
    });
    for instance in instances.collect::<Vec<_>>() {
        instance.await.expect("no task panics");
    }
    let mut states: HashMap<String, bool> = HashMap::new();
    for Transition { user, is_online } in since(&*handles[1], begun).await {
        let before = states.insert(user.to_string(), is_online);
        assert_eq!(before.unwrap_or(false), !is_online, "{user}");
    }
    for name in &names {
        let is_online = ok(handles[0].is_online(&user(name)).await);
        assert_eq!(states.get(name).copied().unwrap_or(false), is_online);
    }
}
