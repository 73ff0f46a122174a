//! A running server, as its callers reach it.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpInfo;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use tidings_storage::finding::Finding;
use tidings_storage::inspection::compare_clocks;
use tokio::time::{Instant, sleep, timeout};

use super::report::Report;
use super::{CommandError, sockets};
use crate::commands::remote::{Refusal, Remote};

const HEALTH: &str = "health";
const KEEP_ALIVE: &str = "keep-alive";
const KEY: &str = "api-key";

/// Longest wait for a reply that takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection must stay open without requests: browsers and proxies count on more.
const IDLE: Duration = Duration::from_secs(5);

/// Asks the server, and adds what it finds.
pub(super) async fn check(remote: &Remote, report: &mut Report) -> Result<(), CommandError> {
    let client = remote.calling_client()?;
    let live = match get(remote, &client, "live").await {
        Ok(response) => response,
        // The others would say the same.
        Err(error) => {
            report.add(&Finding::error(HEALTH, error.to_string()))?;
            return Ok(());
        }
    };
    report.add(&Finding::ok(
        HEALTH,
        format!("live after {:.0?}", live.after),
    ))?;
    let ready = get(remote, &client, "ready").await;
    report.add(&match &ready {
        Ok(ready) => Finding::ok(HEALTH, format!("ready after {:.0?}", ready.after)),
        Err(error) => Finding::error(HEALTH, error.to_string()),
    })?;
    if let Some(finding) = clock(&live.headers, live.asked, live.replied) {
        report.add(&finding)?;
    }
    // The second request may have had a connection of its own, if the first one was not free yet.
    let used = [live.port, ready.ok().and_then(|ready| ready.port)];
    let idle = async {
        sleep(IDLE).await;
        keep_alive(used, get(remote, &client, "live").await)
    };
    if let Some(refused) = refused_key(remote, &client).await {
        report.add(&refused)?;
        // The streams would say the same.
        report.add(&idle.await)?;
        return Ok(());
    }
    let (stream, socket, idle) = tokio::join!(
        sockets::check_stream(remote),
        sockets::check_websocket(remote),
        idle
    );
    for finding in [stream, socket, idle] {
        report.add(&finding)?;
    }
    Ok(())
}

/// The finding that the server does not know the key, or no longer, if one is given. That it may not open streams is
/// found with them.
async fn refused_key(remote: &Remote, client: &Client) -> Option<Finding> {
    if !remote.has_key() {
        return None;
    }
    let url = remote.address(&["v1", "whoami"]).ok()?;
    let refused = timeout(PATIENCE, remote.send(client.get(url)));
    let error = refused.await.ok()?.err()?;
    let status = error.downcast_ref().map(Refusal::status);
    (status == Some(StatusCode::UNAUTHORIZED)).then(|| Finding::error(KEY, error.to_string()))
}

/// A reply, and when it came.
struct Reply {
    headers: HeaderMap,
    /// The port on this side, which names the connection.
    port: Option<u16>,
    after: Duration,
    asked: Timestamp,
    replied: Timestamp,
}

async fn get(remote: &Remote, client: &Client, what: &str) -> Result<Reply, CommandError> {
    let url = remote.address(&["health", what])?;
    let (started, asked) = (Instant::now(), Timestamp::now());
    let reply = async {
        let response = remote.send(client.get(url.clone())).await?;
        let (after, replied) = (started.elapsed(), Timestamp::now());
        let (headers, port) = (response.headers().clone(), local_port(&response));
        // To its end, which frees the connection for the next request.
        let text = remote.rest(response).await;
        let is_ours =
            |text: String| serde_json::from_str(&text).is_ok_and(|it: Health| it.status == what);
        if !text.is_ok_and(is_ours) {
            let kind = headers
                .get(CONTENT_TYPE)
                .and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or("a body without a type");
            return Err(format!(
                "{url} replies with {kind} that does not say {what}: this does not look like a Tidings server"
            )
            .into());
        }
        Ok(Reply {
            headers,
            port,
            after,
            asked,
            replied,
        })
    };
    let reply = timeout(PATIENCE, reply).await;
    reply.map_err(|_| format!("no whole reply within {PATIENCE:?}"))?
}

/// What a server says of its health.
#[derive(Deserialize)]
struct Health {
    status: String,
}

/// Whether the server still replies.
pub(super) async fn is_there(remote: &Remote) -> Result<(), CommandError> {
    get(remote, &remote.calling_client()?, "live").await?;
    Ok(())
}

/// Compares the clock of the server, which is rounded to seconds. A proxy may have put its own there.
fn clock(headers: &HeaderMap, asked: Timestamp, replied: Timestamp) -> Option<Finding> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let theirs = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let second = SignedDuration::from_secs(1);
    Some(compare_clocks("the server", theirs, asked, replied, second))
}

fn local_port(response: &Response) -> Option<u16> {
    let connection = response.extensions().get::<HttpInfo>()?;
    Some(connection.local_addr().port())
}

fn keep_alive(used: [Option<u16>; 2], again: Result<Reply, CommandError>) -> Finding {
    match again {
        Ok(again) if again.port.is_some() && used.contains(&again.port) => Finding::ok(
            KEEP_ALIVE,
            format!("a connection stays open for {IDLE:?} without requests"),
        ),
        Ok(_) => Finding::warning(
            KEEP_ALIVE,
            format!(
                "a connection is closed within {IDLE:?} without requests: each request may need a new one"
            ),
        ),
        Err(error) => Finding::error(KEEP_ALIVE, error.to_string()),
    }
}
