//! What it costs to hand a message over, without what a worker does with it.
//!
//! `cargo bench --bench enqueue`

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use tidings::{Client, Message};
use tidings_bench::Row;
use tokio::sync::mpsc;

/// Messages handed over for each measurement.
const MESSAGES: usize = 1000;

fn enqueue(criterion: &mut Criterion) {
    // The workers run on the thread that measures, so they do nothing meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let started = || {
        let client = Client::builder("http://127.0.0.1:9/")
            .queue_size(MESSAGES)
            .on_error(drop)
            .build()
            .expect("these settings fit");
        runtime.block_on(async { client.start() });
        client
    };
    // Without a thousand messages and clients to drop in the measured time.
    let messages = || vec![Message::from("x"); MESSAGES];

    let mut group = criterion.benchmark_group(format!("{MESSAGES} messages"));
    group.warm_up_time(tidings_bench::length() / 6);
    group.measurement_time(tidings_bench::length() / 2);
    group.bench_function("Message::from", |bencher| {
        bencher.iter_with_large_drop(|| {
            let message = |_| Message::from(black_box("event occurred"));
            (0..MESSAGES).map(message).collect::<Vec<_>>()
        });
    });
    group.bench_function("channel", |bencher| {
        bencher.iter_batched(
            || (mpsc::channel(MESSAGES), messages()),
            |((sender, receiver), messages)| {
                for message in messages {
                    sender.try_send(message).expect("there is room");
                }
                (sender, receiver)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("notify", |bencher| {
        bencher.iter_batched(
            || (started(), messages()),
            |(client, messages)| {
                for message in messages {
                    client.notify(message).expect("there is room");
                }
                client
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("notify, refused by a full queue", |bencher| {
        let client = started();
        for message in messages() {
            client.notify(message).expect("there is room");
        }
        bencher.iter_batched(
            messages,
            |messages| {
                let refused = messages.into_iter().map(|message| client.notify(message));
                refused.filter(Result::is_err).count()
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    enqueue(&mut criterion);
    criterion.final_summary();
    let rate = |function| {
        tidings_bench::criterion::rate(&format!("{MESSAGES} messages"), function, MESSAGES)
    };
    let Some(channel) = rate("channel") else {
        return;
    };
    for (name, function) in [
        ("notify", "notify"),
        (
            "notify, refused by a full queue",
            "notify, refused by a full queue",
        ),
    ] {
        if let Some(rate) = rate(function) {
            Row::rate(name, "messages/s", rate)
                .beside("a bounded channel", channel)
                .note(format!("p99 of {MESSAGES} together"))
                .emit();
        }
    }
}
