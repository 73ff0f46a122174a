//! Lanes that share the limits of a group.

use super::*;

impl Bench {
    /// Adds a lane of a group with so many deliveries.
    fn add_to(&mut self, group: &str, name: &str, host: usize, deliveries: usize) -> LaneId {
        let settings = LaneSettings {
            group: Some(group.into()),
            ..settings((1, 4))
        };
        let id = self.scheduler.add(lane(name, host, settings));
        for _ in 0..deliveries {
            self.scheduler.push(id, delivery(Message::from("x")));
        }
        id
    }

    /// Adds lanes of a group that were quick until now and have work, each at the host that is said.
    fn add_quick(&mut self, group: &str, hosts: impl Iterator<Item = usize>) {
        let ids: Vec<_> = hosts
            .map(|host| {
                let name = format!("{group}{host}");
                let id = self.add_to(group, &name, host, 1);
                assert_eq!(self.begin(), [name.as_str()]);
                self.end(&name, 200, FAST);
                id
            })
            .collect();
        for id in ids {
            for _ in 0..8 {
                self.scheduler.push(id, delivery(Message::from("x")));
            }
        }
    }

    /// Begins what may begin and lets it stall, until nothing more begins. Returns how many.
    fn stall_all(&mut self) -> usize {
        while !self.begin().is_empty() {
            self.stall(SECOND);
        }
        self.under_way.len()
    }
}

#[test]
fn a_group_whose_quick_endpoints_all_stall_has_no_more_than_its_share() {
    let mut bench = Bench::new(limits(64, 256));
    bench.add_quick("mallory", 1..=100);
    // A quarter of the workers, and an eighth of the slow places.
    assert_eq!(bench.stall_all(), 16 + 32);
    for (name, host) in [("bob", 1001), ("carl", 1002)] {
        bench.add_to(name, name, host, 1);
        assert_eq!(bench.begin(), [name]);
        // Their slow endpoints have places, too.
        bench.end(name, 200, 2 * SECOND);
        bench.add_to(name, "more", host, 1);
        assert_eq!(bench.begin(), ["more"]);
    }
}

#[test]
fn five_groups_whose_quick_endpoints_all_stall_leave_workers_and_slow_places_to_others() {
    let mut bench = Bench::new(limits(64, 256));
    for group in ["a", "b", "c", "d", "e"] {
        bench.add_quick(group, 1..=100);
        bench.stall_all();
    }
    assert_eq!(bench.under_way.len(), 5 * (16 + 32));
    let slow = bench.add_to("bob", "bob", 1001, 1);
    assert_eq!(bench.begin(), ["bob"]);
    bench.end("bob", 200, 2 * SECOND);
    bench.scheduler.push(slow, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["bob"]);
}

#[test]
fn a_group_whose_quick_endpoints_all_stall_at_one_host_leaves_room_there_to_others() {
    let mut bench = Bench::new(limits(64, 256));
    let ids: Vec<_> = (0..70)
        .map(|number| {
            let name = format!("mallory{number}");
            let id = bench.add_to("mallory", &name, 1, 1);
            assert_eq!(bench.begin(), [name.as_str()]);
            bench.end(&name, 200, FAST);
            id
        })
        .collect();
    for id in ids {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    assert_eq!(bench.stall_all(), 16);
    // One that is new, one that is quick, one that is slow.
    let bob = bench.add_to("bob", "bob", 1, 1);
    for (elapsed, speed) in [
        (FAST, Speed::Quick),
        (2 * SECOND, Speed::Quick),
        (2 * SECOND, Speed::Slow),
    ] {
        assert_eq!(bench.begin(), ["bob"]);
        bench.end("bob", 200, elapsed);
        assert_eq!(bench.scheduler.speed(bob), Some(speed));
        bench.scheduler.push(bob, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["bob"]);
}

#[test]
fn lanes_of_a_group_that_is_full_go_in_turn_when_its_attempts_end() {
    let mut bench = Bench::new(limits(4, 8));
    bench.add_quick("lane", 1..=3);
    // The group has one worker, and each lane would take it again at once.
    for _ in 0..3 {
        for name in ["lane1", "lane2", "lane3"] {
            assert_eq!(bench.begin(), [name]);
            bench.end(name, 200, FAST);
        }
    }
}

#[test]
fn a_lane_goes_at_once_when_it_leaves_a_group_that_is_full() {
    let mut bench = Bench::new(limits(4, 8));
    bench.add_to("group", "a", 1, 1);
    let leaves = bench.add_to("group", "b", 2, 1);
    bench.add_to("group", "c", 3, 1);
    assert_eq!(bench.begin(), ["a"]);
    (bench.scheduler).change(leaves, endpoint(2), Some(settings((1, 1))));
    assert_eq!(bench.begin(), ["b"]);
    bench.end("b", 200, FAST);
    assert!(bench.begin().is_empty());
    bench.end("a", 200, FAST);
    assert_eq!(bench.begin(), ["c"]);
    bench.end("c", 200, FAST);
    assert!(bench.scheduler.shares.is_empty());
}

#[test]
fn room_in_a_group_is_not_lost_to_a_lane_that_waits_for_its_host() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(4, 8)
    });
    bench.add("other", 1, (1, 1), 1);
    assert_eq!(bench.begin(), ["other"]);
    bench.add_to("group", "a", 2, 1);
    assert_eq!(bench.begin(), ["a"]);
    // Both wait for the group, and the first would have to wait for its host next.
    bench.add_to("group", "b", 1, 1);
    bench.add_to("group", "c", 3, 1);
    assert!(bench.begin().is_empty());
    bench.end("a", 200, FAST);
    assert_eq!(bench.begin(), ["c"]);
    bench.end("c", 200, FAST);
    bench.end("other", 200, FAST);
    assert_eq!(bench.begin(), ["b"]);
}

#[test]
fn a_slow_lane_that_replies_quickly_again_gets_a_worker_of_its_group() {
    let mut bench = Bench::new(limits(4, 2));
    let slow = bench.add_to("group", "slow", 1, 1);
    bench.begin();
    bench.end("slow", 200, 2 * SECOND);
    for _ in 0..3 {
        bench.scheduler.push(slow, delivery(Message::from("x")));
    }
    let other = bench.add_to("group", "other", 2, 1);
    assert_eq!(bench.begin().len(), 2);
    bench.end("slow", 200, FAST);
    bench.end("other", 200, FAST);
    assert_eq!(bench.scheduler.speed(slow), Some(Speed::Quick));
    bench.scheduler.push(other, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["slow"]);
    bench.end("slow", 200, FAST);
    assert_eq!(bench.begin(), ["other"]);
}

#[test]
fn without_a_limit_of_groups_a_group_may_have_everything() {
    let mut bench = Bench::new(Limits {
        group_parts: None,
        ..limits(4, 8)
    });
    bench.add_quick("a", 1..=8);
    assert_eq!(bench.begin().len(), 4);
}
