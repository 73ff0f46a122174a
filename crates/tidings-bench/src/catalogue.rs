//! All benchmarks, once: `scripts/bench` runs what stands here, and docs/performance.md explains each.

/// A program that measures something beside its baseline.
#[derive(Debug, Clone, Copy)]
pub struct Benchmark {
    /// What `scripts/bench --only` and docs/performance.md call it.
    pub name: &'static str,
    /// What it measures, beside what, in one line.
    pub about: &'static str,
    /// The bench target of the workspace.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: &'static [&'static str],
    /// Whether it needs PostgreSQL and Redis.
    pub needs_services: bool,
}

const fn server(
    name: &'static str,
    part: &'static [&'static str],
    about: &'static str,
) -> Benchmark {
    Benchmark {
        name,
        about,
        program: "server",
        arguments: part,
        needs_services: false,
    }
}

const fn alone(name: &'static str, program: &'static str, about: &'static str) -> Benchmark {
    Benchmark {
        name,
        about,
        program,
        arguments: &[],
        needs_services: false,
    }
}

const fn on_services(benchmark: Benchmark) -> Benchmark {
    Benchmark {
        needs_services: true,
        ..benchmark
    }
}

/// In the order in which they run: the server first, then its parts.
pub const BENCHMARKS: &[Benchmark] = &[
    server(
        "accept",
        &["accept"],
        "accepting on SQLite, single and in batches, beside durable-streams and raw commits",
    ),
    server(
        "webhooks",
        &["webhooks"],
        "from accepting to webhooks on SQLite, beside raw commits",
    ),
    on_services(server(
        "postgres",
        &["postgres"],
        "accepting and webhooks on PostgreSQL, beside raw inserts",
    )),
    on_services(server(
        "instances",
        &["instances"],
        "from one instance to the screens of another, beside one instance",
    )),
    server(
        "idle",
        &["idle"],
        "memory and processor time of idle streams, beside durable-streams",
    ),
    server(
        "fan-out",
        &["fan-out"],
        "one event to 1,000 streams, beside socket writes of a bare loop",
    ),
    server(
        "live",
        &["live"],
        "from accepting to a screen with 10,000 open streams, beside few",
    ),
    server(
        "reconnect",
        &["reconnect"],
        "10,000 streams that reconnect at once, and another user meanwhile",
    ),
    server(
        "start",
        &["start"],
        "from start to first response with 1,000,000 events, beside an empty database",
    ),
    server(
        "growth",
        &["growth"],
        "an operation among many users, endpoints, undelivered events and streams, beside few",
    ),
    server(
        "isolation",
        &["isolation"],
        "a healthy endpoint beside 100 stalled ones, beside itself alone",
    ),
    server(
        "burst",
        &["burst"],
        "4,000 events to one endpoint that takes 20 ms, beside the ideal",
    ),
    on_services(server(
        "idle-database",
        &["idle-database"],
        "what 1,000 idle streams cost the database, beside none",
    )),
    alone(
        "embedded",
        "accept_to_webhook",
        "from accepting to webhooks in one process, beside raw commits",
    ),
    alone(
        "delivery",
        "delivery",
        "the webhook client beside bare hyper, bare reqwest, the same loop in Go, and wrk",
    ),
    alone(
        "enqueue",
        "enqueue",
        "handing a message to the webhook client, beside a bounded channel",
    ),
    alone(
        "signing",
        "signing",
        "signatures, beside the bare hash or key",
    ),
    alone(
        "fairness",
        "fairness",
        "endpoints that never reply among a thousand, beside none",
    ),
    alone(
        "soak",
        "soak",
        "hostile receivers under load: memory at the end, beside the middle",
    ),
    on_services(alone(
        "stores",
        "stores",
        "logs of users on each database, beside the database alone",
    )),
    on_services(alone(
        "streams",
        "engines",
        "durable streams on each engine, beside the engine alone",
    )),
    on_services(alone(
        "brokers",
        "brokers",
        "topics on each broker, beside the broker's client alone",
    )),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_benchmarks_have_the_same_name() {
        for (place, benchmark) in BENCHMARKS.iter().enumerate() {
            let mut others = BENCHMARKS[..place].iter();
            assert!(
                others.all(|other| other.name != benchmark.name),
                "{}",
                benchmark.name
            );
        }
    }

    /// Headings of docs/performance.md are the names of the benchmarks, in the same order.
    #[test]
    fn the_handbook_explains_each_benchmark() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md");
        let page = std::fs::read_to_string(page).unwrap();
        let explained: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
            .collect();
        let names: Vec<_> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        assert_eq!(explained, names);
    }

    /// The last table has rows of every benchmark, but for those that the page says were not measured.
    #[test]
    fn the_last_table_has_each_benchmark() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut shown: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
            .map(|(name, _)| name)
            .collect();
        shown.dedup();
        let mut lines = page.lines();
        let lacking = lines.find_map(|line| line.strip_prefix("Not measured: "));
        let lacking: Vec<_> = lacking
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        let names = BENCHMARKS.iter().map(|benchmark| benchmark.name);
        let expected: Vec<_> = names.filter(|name| !lacking.contains(name)).collect();
        assert_eq!(shown, expected);
    }
}
