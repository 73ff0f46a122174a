//! Laws that hold over whatever happens, in whichever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Pick,
    End(prop::sample::Index, u16, u64),
    Break(prop::sample::Index),
    Stall(prop::sample::Index, u64),
    Pass(u64),
    Remove(usize),
    Move(usize, usize),
    Group(usize, Option<usize>),
    Circuit(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>();
    let lane = 0..LANES;
    let status = prop::sample::select(vec![200_u16, 200, 404, 410, 429, 500]);
    prop_oneof![
        6 => lane.clone().prop_map(Step::Push),
        8 => Just(Step::Pick),
        6 => (index, status, 0_u64..3000).prop_map(|(i, status, ms)| Step::End(i, status, ms)),
        1 => any::<prop::sample::Index>().prop_map(Step::Break),
        3 => (any::<prop::sample::Index>(), 0_u64..5000).prop_map(|(i, ms)| Step::Stall(i, ms)),
        2 => (0_u64..40_000).prop_map(Step::Pass),
        1 => lane.clone().prop_map(Step::Remove),
        1 => (lane.clone(), 0_usize..3).prop_map(|(lane, host)| Step::Move(lane, host)),
        1 => (lane.clone(), prop::option::of(0..2_usize)).prop_map(|(lane, group)| Step::Group(lane, group)),
        1 => (lane, any::<bool>()).prop_map(|(lane, open)| Step::Circuit(lane, open)),
    ]
}

const LANES: usize = 6;

const GROUPS: [&str; 2] = ["one", "two"];

/// Every third lane is in none.
fn group_of(lane: usize) -> Option<Arc<str>> {
    GROUPS.get(lane % 3).map(|group| (*group).into())
}

proptest! {
    /// Over any history every message gets exactly one outcome, no limit is exceeded, and no lane
    /// is forgotten.
    #[test]
    fn every_message_gets_one_outcome_within_the_limits(
        steps in prop::collection::vec(step(), 0..400),
        workers in 1_usize..5,
        max_slow in 1_usize..4,
        per_host in 1_usize..4,
        group_parts in prop::option::of(1_usize..4),
    ) {
        let limits = Limits { per_host: Some(per_host), group_parts, ..limits(workers, max_slow) };
        let mut bench = Bench::new(limits);
        let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
        let mut lanes: Vec<Option<LaneId>> = (0..LANES)
            .map(|number| {
                let breaker = CircuitBreakerConfig::default().with_consecutive_failures(2);
                let settings = LaneSettings {
                    breaker: (number % 2 == 0).then_some(breaker),
                    retry: (number % 3 != 0).then(RetryPolicy::default),
                    group: group_of(number),
                    ..settings((1, 3))
                };
                Some(bench.scheduler.add(lane(&number.to_string(), number % 3, settings)))
            })
            .collect();
        let mut pushed = 0;
        for step in steps {
            match step {
                Step::Push(lane) => {
                    // The pool refuses messages for an endpoint that is gone.
                    let is_open = |id: &LaneId| !bench.scheduler.lane(*id).unwrap().is_gone();
                    if let Some(id) = lanes[lane].filter(is_open) {
                        let message = Message::from("x").with_id(pushed.to_string()).unwrap();
                        outcomes.insert(pushed.to_string(), 0);
                        pushed += 1;
                        bench.scheduler.push(id, delivery(message));
                    }
                }
                Step::Pick => {
                    pick(&mut bench, &mut outcomes);
                }
                Step::End(index, status, ms) if !bench.under_way.is_empty() => {
                    let which = index.index(bench.under_way.len());
                    end(&mut bench, which, status, ms, &mut outcomes);
                }
                Step::Break(index) if !bench.under_way.is_empty() => {
                    let which = index.index(bench.under_way.len());
                    let (_, delivery, permit) = bench.under_way.swap_remove(which);
                    bench.scheduler.forget(permit, bench.now);
                    *outcomes.get_mut(delivery.message.id()).unwrap() += 1;
                }
                Step::Stall(index, ms) if !bench.under_way.is_empty() => {
                    let which = index.index(bench.under_way.len());
                    let permit = &mut bench.under_way[which].2;
                    bench.scheduler.check_late(permit, Duration::from_millis(ms));
                }
                Step::End(..) | Step::Break(_) | Step::Stall(..) => {}
                Step::Pass(ms) => {
                    bench.now += Duration::from_millis(ms);
                    bench.scheduler.wake(bench.now);
                }
                Step::Remove(lane) => {
                    if let Some(id) = lanes[lane].take() {
                        for delivery in bench.scheduler.remove(id).unwrap().drain() {
                            *outcomes.get_mut(delivery.message.id()).unwrap() += 1;
                        }
                    }
                }
                Step::Move(lane, host) => {
                    if let Some(id) = lanes[lane] {
                        bench.scheduler.change(id, endpoint(host), None);
                    }
                }
                Step::Group(lane, group) => {
                    if let Some(id) = lanes[lane] {
                        let settings = LaneSettings {
                            group: group.map(|group| GROUPS[group].into()),
                            ..settings((1, 3))
                        };
                        let endpoint = bench.scheduler.lane(id).unwrap().endpoint.clone();
                        bench.scheduler.change(id, endpoint, Some(settings));
                    }
                }
                Step::Circuit(lane, open) => {
                    if let Some(id) = lanes[lane] {
                        bench.scheduler.switch_circuit(id, open);
                    }
                }
            }
            prop_assert!(bench.scheduler.in_flight() <= workers + max_slow);
            prop_assert_eq!(bench.scheduler.in_flight(), bench.under_way.len());
            for host in 0..3 {
                let host = host_of(&endpoint(host));
                let at_host = Common::Host(Arc::clone(&host));
                prop_assert!(bench.scheduler.shares.in_flight(&at_host) <= per_host);
                for (group, parts) in GROUPS.iter().zip([group_parts; 2]) {
                    let shares = &bench.scheduler.shares;
                    let most = |of: usize| parts.map_or(0, |parts| (of / parts).max(1));
                    let group: Arc<str> = (*group).into();
                    let at_host = Common::GroupAtHost(Arc::clone(&group), Arc::clone(&host));
                    prop_assert!(shares.in_flight(&at_host) <= most(per_host));
                    let in_group = shares.in_flight(&Common::Group(group));
                    prop_assert!(in_group <= most(workers) + most(max_slow / 2));
                }
            }
            for id in lanes.iter().flatten() {
                let lane = bench.scheduler.lane(*id).unwrap();
                prop_assert!(lane.in_flight() <= 3);
                prop_assert!(!lane.is_gone() || lane.len() == 0);
            }
        }
        for id in lanes.iter().flatten() {
            bench.scheduler.switch_circuit(*id, false);
        }
        let mut rounds = 0;
        while bench.scheduler.queued() > 0 || !bench.under_way.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 100_000, "a lane was forgotten: {:?}", bench.scheduler);
            while pick(&mut bench, &mut outcomes) {}
            while !bench.under_way.is_empty() {
                end(&mut bench, 0, 200, 10, &mut outcomes);
            }
            if let Some(at) = bench.scheduler.next_timer() {
                bench.now = bench.now.max(at);
                bench.scheduler.wake(bench.now);
            }
        }
        for (message, outcomes) in outcomes {
            prop_assert_eq!(outcomes, 1, "message {}", message);
        }
        prop_assert!(bench.scheduler.workers.are_free());
        prop_assert!(bench.scheduler.shares.is_empty());
    }
}

/// After how many ends of attempts a lane has begun one that always has something to do, if there are
/// ten lanes at most. Each of ten attempts that are under way ends within 300, by chance.
const MOST_ENDS: usize = 600;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// While attempts end one after the other, in any order, and all lanes always have something to
    /// do, each lane begins an attempt again and again.
    #[test]
    fn every_lane_goes_however_full_its_shares_are(
        lanes in prop::collection::vec((0_usize..3, prop::option::of(0..2_usize), 0_u8..3), 1..10),
        (workers, max_slow, per_host) in (1_usize..6, 1_usize..4, 1_usize..6),
        group_parts in prop::option::of(1_usize..5),
        seed in any::<u64>(),
    ) {
        let limits = Limits { per_host: Some(per_host), group_parts, ..limits(workers, max_slow) };
        let mut bench = Bench::new(limits);
        let mut rng = fastrand::Rng::with_seed(seed);
        let ids: Vec<_> = (lanes.iter().enumerate())
            .map(|(number, (host, group, _))| {
                let settings = LaneSettings {
                    group: group.map(|group| GROUPS[group].into()),
                    ..settings((1, 3))
                };
                bench.scheduler.add(lane(&number.to_string(), *host, settings))
            })
            .collect();
        let mut waited = vec![0; ids.len()];
        for _ in 0..3 * MOST_ENDS {
            for id in &ids {
                while bench.scheduler.lane(*id).unwrap().len() < 4 {
                    bench.scheduler.push(*id, delivery(Message::from("x")));
                }
            }
            for name in bench.begin() {
                waited[name.parse::<usize>().unwrap()] = 0;
            }
            for (number, waited) in waited.iter_mut().enumerate() {
                *waited += 1;
                prop_assert!(*waited <= MOST_ENDS, "lane {}: {:?}", number, bench.scheduler);
            }
            prop_assert!(!bench.under_way.is_empty(), "{:?}", bench.scheduler);
            let which = rng.usize(..bench.under_way.len());
            let (id, _, permit) = &mut bench.under_way[which];
            // Some lanes are quick, some are slow, and some are now this and now that.
            let is_slow = match lanes[id.as_str().parse::<usize>().unwrap()].2 {
                0 => false,
                1 => true,
                _ => rng.bool(),
            };
            if is_slow {
                bench.scheduler.check_late(permit, 2 * SECOND);
            }
            if !is_slow || rng.bool() {
                let elapsed = if is_slow { 2 * SECOND } else { FAST };
                bench.settle(which, &attempt(200, elapsed));
            }
        }
        bench.begin();
        while !bench.under_way.is_empty() {
            bench.settle(0, &attempt(200, FAST));
            bench.begin();
        }
        prop_assert_eq!(bench.scheduler.queued(), 0);
        prop_assert!(bench.scheduler.workers.are_free());
        prop_assert!(bench.scheduler.shares.is_empty());
    }
}

proptest! {
    /// While new messages keep coming, some retry goes out in each second in which one is due.
    #[test]
    fn no_retry_waits_for_longer_than_the_trickle_while_others_go(
        steps in prop::collection::vec((0_u64..400, any::<bool>(), any::<bool>()), 1..300),
        share in 0.0..1.0,
    ) {
        let mut bench = Bench::new(limits(4, 4));
        let settings = LaneSettings {
            budget: Some(RetryBudget::default().with_share(share)),
            ..settings((1, 1))
        };
        let id = bench.scheduler.add(lane("a", 1, settings));
        // When each message that waits is due, and when a retry went out last.
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
        let mut last_retry = None;
        for (number, (ms, fails, is_healthy)) in steps.into_iter().enumerate() {
            let message = Message::from("x").with_id(number.to_string()).unwrap();
            bench.scheduler.push(id, delivery(message));
            bench.now += Duration::from_millis(ms);
            bench.scheduler.wake(bench.now);
            prop_assert_eq!(bench.begin().len(), 1);
            let name = bench.under_way[0].1.message.id().to_owned();
            if due.remove(&name).is_some() {
                last_retry = Some(bench.now);
            } else if let Some(oldest) = due.values().min() {
                let since = last_retry.map_or(*oldest, |last: Instant| last.max(*oldest));
                prop_assert!(bench.now < since + SECOND, "due since {:?}", bench.now - *oldest);
            }
            let attempt = match (fails, is_healthy) {
                (true, _) => attempt(503, FAST),
                (false, true) => attempt(200, FAST),
                (false, false) => unsent(),
            };
            if let Settled::Waits = bench.settle(0, &attempt) {
                due.insert(name, bench.last_due.unwrap());
            }
        }
    }
}

fn pick(bench: &mut Bench, outcomes: &mut BTreeMap<String, u32>) -> bool {
    let could = bench.scheduler.has_work();
    match bench.scheduler.pick(bench.now, false) {
        Some(Work::Attempt {
            id,
            delivery,
            permit,
            ..
        }) => bench.under_way.push((id, delivery, permit)),
        Some(Work::Fail { delivery, .. }) => {
            *outcomes.get_mut(delivery.message.id()).unwrap() += 1;
        }
        None => return false,
    }
    assert!(could, "a worker would not have been woken");
    true
}

fn end(
    bench: &mut Bench,
    which: usize,
    status: u16,
    ms: u64,
    outcomes: &mut BTreeMap<String, u32>,
) {
    match bench.settle(which, &attempt(status, Duration::from_millis(ms))) {
        Settled::Waits => {}
        Settled::Delivered(delivery) | Settled::Failed(delivery, _) => {
            *outcomes.get_mut(delivery.message.id()).unwrap() += 1;
        }
        Settled::Gone(delivery, left) => {
            for delivery in left.iter().chain([&*delivery]) {
                *outcomes.get_mut(delivery.message.id()).unwrap() += 1;
            }
        }
    }
}
