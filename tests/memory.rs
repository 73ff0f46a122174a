//! What a queued message costs, measured at the allocator. It has a program of its own, because
//! nothing else may allocate meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidings::{Dispatcher, Endpoint, LaneConfig, Message};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 10_000;
const BODY: usize = 100;

#[tokio::test]
async fn a_queued_message_takes_less_than_256_bytes_besides_its_body() {
    let lane = LaneConfig::default().with_queue_size(MESSAGES);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    let endpoint = Endpoint::new("http://127.0.0.1:9/").unwrap();
    dispatcher.insert("a", endpoint).unwrap();
    dispatcher.start();
    dispatcher.open_circuit("a");

    let region = Region::new(ALLOCATOR);
    for _ in 0..MESSAGES {
        let body: Bytes = vec![0; BODY].into();
        dispatcher.notify("a", Message::new(body)).unwrap();
    }
    assert_eq!(dispatcher.queued(), MESSAGES);
    let change = region.change();
    let bytes = change.bytes_allocated - change.bytes_deallocated;
    let each = bytes / MESSAGES - BODY;
    println!("{each} bytes a message");
    assert!(each < 256, "{each} bytes");
}
