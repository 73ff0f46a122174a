//! Shares by themselves.

use std::time::Duration;

use super::super::Isolation;
use super::*;

fn none() -> PromisedOfEach {
    PromisedOfEach::default()
}

fn at_host(per_host: usize) -> (Shares, Arc<[Common]>) {
    shares(64, Some(per_host), None)
}

/// Shares under limits, and those of a lane: of a group if groups have a limit.
fn shares(
    workers: usize,
    per_host: Option<usize>,
    group_parts: Option<usize>,
) -> (Shares, Arc<[Common]>) {
    let shares = Shares::new(Limits {
        workers,
        isolation: Some(Isolation {
            slow_after: Duration::from_secs(1),
            max_slow: 16,
        }),
        per_host,
        group_parts,
    });
    let of = shares.of(&"host".into(), group_parts.map(|_| "group".into()).as_ref());
    (shares, of)
}

#[test]
fn a_lane_that_no_longer_waits_is_not_let_in() {
    let (mut hosts, of) = at_host(1);
    let permit = hosts.acquire(&of, Speed::Quick);
    let places = [1, 2].map(|lane| hosts.block(&of, 0, Speed::Quick, LaneId(lane)));
    hosts.unblock(&of, places[0]);
    assert_eq!(hosts.next_unblocked(&of[0], Attempts::default()), None);
    hosts.release(&permit);
    let mut promised = Attempts::default();
    promised.add(Speed::Quick);
    assert_eq!(hosts.next_unblocked(&of[0], promised), None);
    let lane = hosts.next_unblocked(&of[0], Attempts::default());
    assert_eq!(lane, Some(LaneId(2)));
    assert!(hosts.is_empty());
}

#[test]
fn slow_and_new_attempts_leave_room_for_quick_ones() {
    let slow_first = [Speed::Slow, Speed::New, Speed::Quick];
    let new_first = [Speed::New, Speed::Slow, Speed::Quick];
    // The limit, and how many attempts of each speed can be under way that begin in this order.
    for (limit, order, expected) in [
        (1, slow_first, [1, 0, 0]),
        (2, slow_first, [1, 1, 0]),
        (4, slow_first, [2, 1, 1]),
        (5, slow_first, [3, 1, 1]),
        (64, slow_first, [32, 16, 16]),
        (4, new_first, [3, 0, 1]),
        (64, new_first, [48, 0, 16]),
    ] {
        let (mut hosts, of) = at_host(limit);
        let mut fill = |speed| {
            let mut begun = 0;
            while hosts.full(&of, speed, &none()).is_none() {
                hosts.acquire(&of, speed);
                begun += 1;
            }
            begun
        };
        assert_eq!(order.map(&mut fill), expected, "{limit}, {order:?}");
    }
}

#[test]
fn what_was_promised_to_slow_and_new_lanes_counts() {
    for (speed, under_way) in [(Speed::New, 2), (Speed::Slow, 1)] {
        let (mut hosts, of) = at_host(4);
        for _ in 0..under_way {
            hosts.acquire(&of, speed);
        }
        hosts.block(&of, 0, speed, LaneId(1));
        let mut promised = Attempts::default();
        promised.add(speed);
        assert_eq!(hosts.next_unblocked(&of[0], promised), None);
        let lane = hosts.next_unblocked(&of[0], Attempts::default());
        assert_eq!(lane, Some(LaneId(1)));
    }
}

#[test]
fn a_late_attempt_takes_room_that_slow_ones_may_have() {
    for speed in [Speed::New, Speed::Quick] {
        let (mut hosts, of) = at_host(4);
        let mut permits = [(); 2].map(|()| hosts.acquire(&of, speed));
        for permit in &mut permits {
            assert_eq!(hosts.full(&of, Speed::Slow, &none()), None);
            hosts.mark_late(permit);
        }
        assert_eq!(hosts.full(&of, Speed::Slow, &none()), Some(0));
        assert_eq!(hosts.full(&of, Speed::New, &none()), None);
        for permit in &permits {
            hosts.release(permit);
        }
        assert!(hosts.is_empty());
    }
}

#[test]
fn a_late_attempt_of_a_new_lane_leaves_no_more_room_to_new_ones() {
    let (mut hosts, of) = at_host(4);
    let mut permits: Vec<_> = (0..3).map(|_| hosts.acquire(&of, Speed::New)).collect();
    assert_eq!(hosts.full(&of, Speed::New, &none()), Some(0));
    for permit in &mut permits {
        hosts.mark_late(permit);
    }
    assert_eq!(hosts.full(&of, Speed::New, &none()), Some(0));
    assert_eq!(hosts.full(&of, Speed::Slow, &none()), Some(0));
    assert_eq!(hosts.full(&of, Speed::Quick, &none()), None);
    for permit in &permits {
        hosts.release(permit);
    }
    assert!(hosts.is_empty());
}

#[test]
fn a_group_has_a_part_of_the_workers_and_half_a_part_of_the_slow_places() {
    // The workers, and how many quick and slow attempts can be under way of a group.
    for (workers, quick, slow) in [(64, 16, 2), (8, 2, 2), (3, 1, 2)] {
        let (mut shares, of) = shares(workers, None, Some(4));
        let mut fill = |speed| {
            let mut begun = 0;
            while shares.full(&of, speed, &none()).is_none() {
                shares.acquire(&of, speed);
                begun += 1;
            }
            begun
        };
        let begun = [Speed::Slow, Speed::Quick, Speed::New].map(&mut fill);
        assert_eq!(begun, [slow, quick, 0], "{workers}");
    }
}

#[test]
fn late_attempts_of_a_group_give_its_workers_back_while_its_slow_ones_have_room() {
    let (mut shares, of) = shares(4, None, Some(2));
    for begun in [2, 2, 2] {
        let mut permits = Vec::new();
        while shares.full(&of, Speed::Quick, &none()).is_none() {
            permits.push(shares.acquire(&of, Speed::Quick));
        }
        assert_eq!(permits.len(), begun);
        for permit in &mut permits {
            shares.mark_late(permit);
        }
    }
    // Four are slow, two more hold the workers.
    assert_eq!(shares.full(&of, Speed::Quick, &none()), Some(0));
}

#[test]
fn a_group_that_is_late_with_all_that_it_may_have_at_a_host_leaves_room_there_to_slow_ones() {
    for per_host in [4, 64] {
        let (mut shares, of) = shares(1000, Some(per_host), Some(4));
        while shares.full(&of, Speed::Quick, &none()).is_none() {
            let mut permit = shares.acquire(&of, Speed::Quick);
            shares.mark_late(&mut permit);
        }
        assert_eq!(shares.in_flight(&of[2]), per_host / 4);
        let others = shares.of(&"host".into(), Some(&"others".into()));
        for speed in Speed::ALL {
            assert_eq!(shares.full(&others, speed, &none()), None);
        }
    }
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let (mut shares, of) = shares(1, None, None);
    let permit = shares.acquire(&of, Speed::Quick);
    assert!(shares.is_empty());
    assert_eq!(shares.full(&of, Speed::Slow, &none()), None);
    shares.release(&permit);
    let of = shares.of(&"host".into(), Some(&"group".into()));
    assert!(of.is_empty());
}

#[test]
fn a_group_that_is_alone_at_a_host_has_a_part_of_it_and_a_third_of_that_beside_others() {
    let (mut shares, group) = shares(1000, Some(64), Some(4));
    let of = |shares: &Shares, group: &str| shares.of(&"host".into(), Some(&group.into()));
    let fill = |shares: &mut Shares, of: &Arc<[Common]>| {
        let before = shares.in_flight(&of[0]);
        while shares.full(of, Speed::Quick, &none()).is_none() {
            shares.acquire(of, Speed::Quick);
        }
        shares.in_flight(&of[0]) - before
    };
    let permits: Vec<_> = (0..3)
        .map(|_| shares.acquire(&group, Speed::Quick))
        .collect();
    assert_eq!(fill(&mut shares, &group), 13);
    let others = of(&shares, "others");
    assert_eq!(fill(&mut shares, &others), 5);
    // What it had beyond its share beside others does not come back.
    for permit in &permits {
        shares.release(permit);
    }
    assert_eq!(fill(&mut shares, &group), 0);
}

#[test]
fn one_lane_of_each_speed_keeps_room_in_a_share() {
    let (mut shares, of) = shares(64, Some(64), Some(4));
    assert_eq!(shares.keep(&of[..2], Speed::Quick), 2);
    assert_eq!(shares.keep(&of[..2], Speed::Slow), 2);
    assert_eq!(shares.keep(&of, Speed::Quick), 0);
    assert_eq!(shares.keep(&of[2..], Speed::Quick), 1);
    assert_eq!(
        [0, 1, 2].map(|share| shares.in_flight(&of[share])),
        [2, 2, 1]
    );
    // The next one waits for that, although there is room.
    let waiting = shares.block_as(&of, 0, Speed::Quick, true, LaneId(1));
    assert_eq!(shares.next_unblocked(&of[0], Attempts::default()), None);
    shares.give_back(&of, Turn::Keeps(2, Speed::Quick));
    let next = shares.next_unblocked(&of[0], Attempts::default());
    assert_eq!((next, waiting.share()), (Some(LaneId(1)), 0));
    shares.give_back(&of, Turn::Keeps(2, Speed::Slow));
    shares.give_back(&of[2..], Turn::Keeps(1, Speed::Quick));
    assert!(shares.is_empty());
}
