//! `cargo run -p tidings-server --example embedded`
//!
//! Runs a server inside of another program, sends a notification to it, and stops it in order: what a test of an
//! application does, for instance. Its file is thrown away in the end.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use tidings_server::{Config, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let database = format!(
        "--database=sqlite:{}",
        folder.path().join("tidings.db").display()
    );
    let server = Server::start(Config::from_flags([
        "--dev",
        "--listen=127.0.0.1:0",
        &database,
    ])?)
    .await?;
    let url = format!("http://{}", server.address());

    let notification = serde_json::json!({"user_id": "anna", "payload": {"text": "Hello"}});
    let request = reqwest::Client::new()
        .post(format!("{url}/v1/notifications"))
        .json(&notification);
    let stored: serde_json::Value = request.send().await?.error_for_status()?.json().await?;
    println!("stored as {}", stored["id"]);

    println!("stopped: {:?}", server.shutdown().await);
    Ok(())
}
