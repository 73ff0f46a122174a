use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use clap::Args;
use jiff::Timestamp;
use tidings::signing::{Secret, Verifier};
use tidings_storage::explain::said_by_system;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::interrupts::Interrupts;
use super::{CommandError, MAX_COUNT, receiving};
use crate::settings::{Unshown, count};
use crate::wire::notification::MAX_NOTIFICATION_BYTES;
use crate::wire::webhook::SECRET_RULE;

/// How long the end waits for requests that have not come whole: a sender may never complete one.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Receives webhooks on every path.
#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Port on 127.0.0.1 to listen on; 0 picks a free port
    #[arg(long, default_value = "9000", value_name = "PORT", value_parser = count(0_u16, u16::MAX))]
    port: u16,

    /// Secret of the endpoint; may be given several times while secrets are rotated. Without it, a new
    /// secret is generated and printed
    #[arg(
        long,
        env = "TIDINGS_SECRET",
        value_name = "whsec_…",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = Unshown(secret)
    )]
    secret: Vec<Secret>,

    /// Status to reply with after verification, for example 503 to simulate a failing receiver
    #[arg(long, default_value = "204", value_name = "STATUS", value_parser = count(200_u16, 599))]
    status: u16,

    /// Ends after this many webhooks
    #[arg(long, value_name = "COUNT", value_parser = count(1, MAX_COUNT))]
    count: Option<u64>,
}

fn secret(text: &str) -> Result<Secret, String> {
    Secret::parse(text).map_err(|error| format!("{error}; {SECRET_RULE}"))
}

struct Receiver {
    verifier: Verifier,
    status: StatusCode,
    count: tokio::sync::mpsc::Sender<()>,
}

impl Listen {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
            .await
            .map_err(|error| {
                let reason = said_by_system(&error);
                format!("cannot listen on port {}: {reason}", self.port)
            })?;
        let mut interrupts = Interrupts::listen()?;
        let verifier = verifier(self.secret)?;
        let (count, mut counted) = tokio::sync::mpsc::channel(64);
        let receiver = Arc::new(Receiver {
            verifier,
            status: StatusCode::from_u16(self.status)?,
            count,
        });
        writeln!(
            io::stdout(),
            "Receiving webhooks on http://{}",
            listener.local_addr()?
        )?;
        let service = Router::new().fallback(receive).with_state(receiver);
        let enough = async move {
            let mut left = self.count;
            while left != Some(0) && counted.recv().await.is_some() {
                left = left.map(|left| left - 1);
            }
        };
        let stop = CancellationToken::new();
        let mut serving = pin!(receiving::serve(listener, service, stop.clone()));
        tokio::select! {
            () = &mut serving => {}
            () = enough => {}
            () = interrupts.next() => {}
        }
        stop.cancel();
        tokio::select! {
            () = serving => {}
            () = interrupts.next() => {}
            () = sleep(LAST_WAIT) => {}
        }
        Ok(())
    }
}

fn verifier(secrets: Vec<Secret>) -> io::Result<Verifier> {
    let mut secrets = secrets.into_iter();
    let Some(first) = secrets.next() else {
        let secret = Secret::generate();
        let shown = secret.expose();
        writeln!(
            io::stdout(),
            "The secret for the endpoint: {}",
            shown.as_str()
        )?;
        return Ok(Verifier::new(secret));
    };
    Ok(secrets.fold(Verifier::new(first), Verifier::with_secret))
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_NOTIFICATION_BYTES).await else {
        report("✗ a webhook with a body that is too large or incomplete");
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    let id = head.headers.get("webhook-id");
    let id = id.and_then(|id| id.to_str().ok()).unwrap_or("(no id)");
    let status = match receiver
        .verifier
        .verify(&head.headers, &body, Timestamp::now())
    {
        Ok(_) => {
            report(&format!("✓ {id}  {}", String::from_utf8_lossy(&body)));
            receiver.status
        }
        Err(error) => {
            report(&format!("✗ {id}  not verified: {error}"));
            StatusCode::UNAUTHORIZED
        }
    };
    // The counter has gone when enough were counted.
    let _enough = receiver.count.send(()).await;
    status
}

fn report(line: &str) {
    // A closed pipe must not stop the receiver from replying.
    let _closed = writeln!(std::io::stdout(), "{line}");
}
