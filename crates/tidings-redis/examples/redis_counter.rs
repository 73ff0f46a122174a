//! `cargo run -p tidings-redis --example redis_counter -- redis://redis.example.com/0`
//!
//! Counts how often this was run. The key lasts for an hour.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use tidings_redis::redis::cmd;
use tidings_redis::{Config, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("expected the URL of a server")?;
    let server = Server::new(Config::new(&url)?);
    let count: u64 = server
        .run(|mut connection| async move {
            cmd("INCR")
                .arg("tidings:example")
                .query_async(&mut connection)
                .await
        })
        .await?;
    let _lasts: bool = server
        .run(|mut connection| async move {
            cmd("EXPIRE")
                .arg("tidings:example")
                .arg(3600)
                .query_async(&mut connection)
                .await
        })
        .await?;
    println!("run {count} times");
    Ok(())
}
