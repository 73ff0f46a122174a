//! `cargo run --example verify`
//!
//! Receives webhooks on port 8787, accepts those that `cargo run --example send` signs, and prints
//! them. Another port can be given as an argument; 0 picks a free one.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::process::ExitCode;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tidings::signing::{Secret, Verifier};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = match &arguments[..] {
        [] => Some(8787),
        [port] => port.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("expected one argument at most, a port of 0 to 65535");
        return ExitCode::FAILURE;
    };
    match serve(port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;

    let app = Router::new()
        .route("/hooks", post(receive))
        .with_state(Verifier::new(secret));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!(
        "receiving on http://{}/hooks, Ctrl-C ends",
        listener.local_addr()?
    );
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            // Without a signal handler there is nothing to wait for: serve until killed.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}

/// The exact bytes are verified: a body that was parsed and written again has other ones.
async fn receive(
    State(verifier): State<Verifier>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    let genuine = verifier
        .verify_now(&headers, &body)
        .map_err(|error| (StatusCode::UNAUTHORIZED, error.to_string()))?;
    // A repeated delivery has the same id: a real receiver checks here whether it has seen it.
    println!("{} {}", genuine.id, String::from_utf8_lossy(&body));
    Ok(StatusCode::NO_CONTENT)
}
