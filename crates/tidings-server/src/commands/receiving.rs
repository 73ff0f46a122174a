//! How commands receive webhooks: over HTTP/1 alone, which is all that the client uses without TLS. The server of `axum`
//! brings a server for HTTP/2 along.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a connection could not be accepted, for want of file descriptors for example.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves connections until `stop` is cancelled, and then those requests that are in progress.
pub(super) async fn serve(listener: TcpListener, service: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(service);
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (service, stop) = (service.clone(), stop.clone());
        connections.spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            // A sender that breaks a connection off sends the webhook again.
            let _ended = tokio::select! {
                ended = &mut connection => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
        });
    }
    // Who connects now is refused, and does not wait.
    drop(listener);
    connections.close();
    connections.wait().await;
}
