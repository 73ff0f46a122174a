//! Lanes that share the limits of a group.

use super::*;

impl Bench {
    /// Adds a lane of a group with so many deliveries.
    fn add_to(&mut self, group: &str, name: &str, host: usize, deliveries: usize) -> LaneId {
        let id = self
            .scheduler
            .add(lane(name, host, in_group(group, (1, 4))));
        self.push(id, deliveries);
        id
    }

    /// Adds a lane of a group that is quick.
    fn prove_in(&mut self, group: &str, name: &str, host: usize, in_flight: (u32, u32)) -> LaneId {
        let id = (self.scheduler).add(lane(name, host, in_group(group, in_flight)));
        self.push(id, 1);
        assert_eq!(self.begin(), [name]);
        self.end(name, 200, FAST);
        id
    }

    fn push(&mut self, id: LaneId, deliveries: usize) {
        for _ in 0..deliveries {
            self.scheduler.push(id, delivery(Message::from("x")));
        }
    }

    /// Ends an attempt of a lane, and names those that begin then.
    fn begin_after(&mut self, name: &str) -> Vec<String> {
        self.end(name, 200, FAST);
        self.begin()
    }

    /// Ends all attempts, one after the other, until nothing is left.
    fn run_dry(&mut self) {
        while !self.under_way.is_empty() {
            self.settle(0, &attempt(200, FAST));
            self.begin();
        }
        assert_eq!(self.scheduler.queued(), 0);
        assert!(self.scheduler.workers.are_free());
        assert!(self.scheduler.shares.is_empty());
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

fn in_group(group: &str, in_flight: (u32, u32)) -> LaneSettings {
    LaneSettings {
        group: Some(group.into()),
        ..settings(in_flight)
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

/// A scheduler in which so many groups stall at one host with all that they may have there, and an
/// endpoint there of another group that is quick, and one that is slow.
fn groups_that_stall_at_one_host(groups: usize) -> (Bench, [LaneId; 2]) {
    let mut bench = Bench::new(limits(64, 256));
    let ids = ["quick", "slow"].map(|name| bench.prove_in("bob", name, 1, (1, 4)));
    for _ in 0..2 {
        bench.push(ids[1], 1);
        assert_eq!(bench.begin(), ["slow"]);
        bench.end("slow", 200, 2 * SECOND);
    }
    let lanes: Vec<_> = (0..groups)
        .flat_map(|group| (0..20).map(move |number| (group, number)))
        .map(|(group, number)| {
            let name = format!("mallory{group}-{number}");
            bench.prove_in(&group.to_string(), &name, 1, (1, 4))
        })
        .collect();
    for group in lanes.chunks(20) {
        for id in group {
            bench.push(*id, 8);
        }
        bench.stall_all();
    }
    (bench, ids)
}

#[test]
fn groups_that_all_stall_at_one_host_leave_room_there_to_others() {
    for groups in 1..=11 {
        // The first is alone at first.
        let (bench, _) = groups_that_stall_at_one_host(groups);
        assert_eq!(bench.under_way.len(), (11 + 5 * groups).min(64));
        let begins = |name: &str, push: fn(&mut Bench, [LaneId; 2])| {
            let (mut bench, ids) = groups_that_stall_at_one_host(groups);
            push(&mut bench, ids);
            bench.begin() == [name]
        };
        let slow = begins("slow", |bench, [_, slow]| bench.push(slow, 1));
        let new = begins("new", |bench, _| {
            bench.add_to("bob", "new", 1, 1);
        });
        let quick = begins("quick", |bench, [quick, _]| bench.push(quick, 1));
        let expected = (groups <= 4, groups <= 7, groups <= 10);
        assert_eq!((slow, new, quick), expected, "{groups}");
    }
}

#[test]
fn groups_that_stall_at_one_host_at_the_same_time_have_no_more_there_than_one_after_the_other() {
    let mut bench = Bench::new(limits(64, 256));
    let lanes: Vec<_> = (0..80)
        .map(|number| {
            let group = (number % 4).to_string();
            bench.prove_in(&group, &number.to_string(), 1, (1, 4))
        })
        .collect();
    for id in lanes {
        bench.push(id, 8);
    }
    let late = bench.stall_all();
    assert!((4 * 5..=31).contains(&late), "{late}");
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

/// One attempt at a time at each host and of the group. Lanes with much to do have both: one at
/// host 1, and one of the group at another. A third one, of the group and at host 1, waits.
fn one_at_a_time() -> (Bench, LaneId) {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(4, 8)
    });
    let other = bench.prove("other", 1, (1, 1));
    let a = bench.prove_in("group", "a", 2, (1, 1));
    for id in [other, a] {
        bench.push(id, 100);
    }
    assert_eq!(bench.begin(), ["other", "a"]);
    let waits = bench.add_to("group", "b", 1, 1);
    assert!(bench.begin().is_empty());
    (bench, waits)
}

#[test]
fn regression_a_lane_goes_although_its_group_and_its_host_never_have_room_at_the_same_time() {
    let (mut bench, _) = one_at_a_time();
    assert_eq!(bench.begin_after("a"), ["a"]);
    assert_eq!(bench.begin_after("other"), ["other"]);
    // The room of the group is kept for it from now on, and then that of its host.
    assert_eq!(bench.begin_after("a"), [""; 0]);
    assert_eq!(bench.begin_after("other"), ["b"]);
    assert_eq!(bench.begin_after("b"), ["other", "a"]);
    bench.run_dry();
}

#[test]
fn a_lane_that_leaves_its_shares_gives_back_the_room_that_it_keeps() {
    let leave: [fn(&mut Scheduler, LaneId); 3] = [
        |scheduler, id| drop(scheduler.remove(id)),
        |scheduler, id| drop(scheduler.change(id, endpoint(9), None)),
        |scheduler, id| drop(scheduler.change(id, endpoint(1), Some(settings((1, 1))))),
    ];
    for leave in leave {
        let (mut bench, id) = one_at_a_time();
        for name in ["a", "other", "a"] {
            bench.begin_after(name);
        }
        leave(&mut bench.scheduler, id);
        assert!(bench.begin().contains(&"a".to_owned()));
        bench.run_dry();
    }
}

#[test]
fn a_lane_that_turns_slow_or_is_gone_gives_back_the_room_that_it_keeps() {
    for is_gone in [false, true] {
        // A group has 16 workers, and a lane of it one of them at a host that is full.
        let mut bench = Bench::new(Limits {
            per_host: Some(12),
            group_parts: Some(2),
            ..limits(32, 32)
        });
        let mut ids = vec![bench.prove("other", 1, (11, 11))];
        for (name, host) in [("a2", 2), ("a3", 3), ("a4", 4)] {
            ids.push(bench.prove_in("group", name, host, (5, 5)));
        }
        for id in ids {
            bench.push(id, 100);
        }
        assert_eq!(bench.begin().len(), 11 + 15);
        let id = (bench.scheduler).add(lane("b", 1, in_group("group", (2, 2))));
        bench.push(id, 4);
        assert_eq!(bench.begin(), ["b"]);
        // Then another attempt keeps the room of the group, and waits for the host.
        assert_eq!(bench.begin_after("a2"), ["a2"]);
        assert_eq!(bench.begin_after("other"), ["other"]);
        assert_eq!(bench.begin_after("a2"), [""; 0]);
        if is_gone {
            bench.end("b", 410, FAST);
        } else {
            let (_, _, permit) = (bench.under_way.iter_mut())
                .find(|(id, ..)| id.as_str() == "b")
                .unwrap();
            bench.scheduler.check_late(permit, 2 * SECOND);
        }
        assert!(bench.begin().contains(&"a2".to_owned()), "{is_gone}");
        bench.run_dry();
    }
}

#[test]
fn a_host_that_stalls_holds_one_worker_of_a_group_at_most_for_the_lanes_that_wait_for_it() {
    let mut bench = Bench::new(Limits {
        per_host: Some(12),
        ..limits(16, 16)
    });
    let waiting = [(); 9].map(|()| {
        let name = format!("waits{}", bench.scheduler.next_lane);
        bench.prove_in("group", &name, 1, (1, 1))
    });
    let other = bench.prove("other", 1, (12, 12));
    bench.push(other, 1000);
    assert_eq!(bench.begin().len(), 12);
    for host in 2..=6 {
        bench.add_to("group", &format!("goes{host}"), host, 1000);
    }
    for id in waiting {
        bench.push(id, 100);
    }
    bench.begin();
    for number in 0..200 {
        // At first attempts end everywhere, and then none at the host.
        let ends = if number < 100 && number % 2 == 0 {
            "other"
        } else {
            "goes"
        };
        let index = (bench.under_way.iter()).position(|(id, ..)| id.as_str().starts_with(ends));
        bench.settle(index.unwrap(), &attempt(200, FAST));
        bench.begin();
        let of_group = |(id, ..): &&(EndpointId, _, _)| id.as_str() != "other";
        let under_way = bench.under_way.iter().filter(of_group).count();
        assert!((3..=4).contains(&under_way), "{under_way} after {number}");
    }
}

#[test]
fn an_attempt_moves_few_lanes_however_many_wait_for_its_group_and_its_host() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(4, 8)
    });
    let lanes = [(); 200].map(|()| {
        let name = bench.scheduler.next_lane.to_string();
        bench.prove_in("group", &name, 1, (1, 1))
    });
    let other = bench.prove("other", 1, (1, 1));
    let a = bench.prove_in("group", "a", 2, (1, 1));
    for id in [other, a] {
        bench.push(id, 100);
    }
    assert_eq!(bench.begin(), ["other", "a"]);
    for id in lanes {
        bench.push(id, 1);
    }
    let before = bench.scheduler.ready.pushed();
    bench.run_dry();
    // For 400 attempts.
    let moves = bench.scheduler.ready.pushed() - before;
    assert!(moves <= 400 * 8, "{moves}");
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
