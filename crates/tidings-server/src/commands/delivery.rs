use std::fmt;
use std::io::Write;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_storage::counted;
use tidings_webhooks::{DeliveryId, DeliveryState, EndpointId};

use super::document::Document;
use super::remote::Remote;
use super::{CommandError, print_done};
use crate::settings::count;
use crate::wire::Data;
use crate::wire::webhook::{DEFAULT_PAGE, MAX_PAGE};

/// Shows what was sent to webhook endpoints, and sends it again.
#[derive(Debug, Args)]
pub(super) struct Delivery {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists deliveries, newest first
    List(List),
    /// Shows a delivery
    Show(One),
    /// Lists the requests of a delivery with their responses, oldest first
    Attempts(One),
    /// Sends a delivery again, in any state
    Retry(One),
}

#[derive(Debug, Args)]
struct List {
    /// Only those to this endpoint
    #[arg(long, value_name = "ID")]
    endpoint: Option<EndpointId>,

    /// Only those in this state: pending, delivered, failed or cancelled
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<DeliveryState>,

    /// How many deliveries to show, 1 to 500
    #[arg(long, default_value_t = DEFAULT_PAGE, value_name = "COUNT", value_parser = count(1, MAX_PAGE))]
    limit: usize,

    /// Only those that are older than this delivery
    #[arg(long, value_name = "ID")]
    cursor: Option<DeliveryId>,

    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct One {
    /// The id of the delivery, from its list
    #[arg(value_name = "ID")]
    id: DeliveryId,

    /// Prints the JSON of the server, one object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: Remote,
}

fn state(text: &str) -> Result<DeliveryState, &'static str> {
    DeliveryState::parse(text).ok_or("expected pending, delivered, failed or cancelled")
}

/// A page of deliveries.
#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Document>,
    next: Option<String>,
}

impl Delivery {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Show(one) => one.show().await,
            Command::Attempts(one) => one.attempts().await,
            Command::Retry(one) => one.retry().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CommandError> {
        let mut url = self.remote.address(&["v1", "deliveries"])?;
        let parameters = [
            ("limit", Some(self.limit.to_string())),
            ("endpoint_id", self.endpoint.map(|id| id.to_string())),
            ("state", self.state.map(|state| state.as_str().to_owned())),
            ("cursor", self.cursor.map(|id| id.to_string())),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        let Page { data, next } = self.remote.get(url).await?;
        let mut out = std::io::stdout().lock();
        for delivery in &data {
            if self.json {
                writeln!(out, "{}", delivery.json())?;
            } else {
                delivery.write_line::<DeliveryLine<'_>>(&mut out)?;
            }
        }
        match next {
            Some(next) => writeln!(std::io::stderr(), "for older ones: --cursor {next}")?,
            None if data.is_empty() => writeln!(std::io::stderr(), "no deliveries")?,
            None => {}
        }
        Ok(())
    }
}

impl One {
    async fn show(self) -> Result<(), CommandError> {
        let url = self
            .remote
            .address(&["v1", "deliveries", &self.id.to_string()])?;
        let delivery: Document = self.remote.get(url).await?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", delivery.json())?;
        } else {
            delivery.write_fields(&mut out)?;
        }
        Ok(())
    }

    async fn attempts(self) -> Result<(), CommandError> {
        let url = self
            .remote
            .address(&["v1", "deliveries", &self.id.to_string(), "attempts"])?;
        let Data::<Vec<Document>> { data } = self.remote.get(url).await?;
        if data.is_empty() && !self.json {
            writeln!(std::io::stderr(), "no attempts")?;
        }
        let mut out = std::io::stdout().lock();
        for attempt in &data {
            if self.json {
                writeln!(out, "{}", attempt.json())?;
            } else {
                attempt.write_line::<AttemptLine<'_>>(&mut out)?;
            }
        }
        Ok(())
    }

    async fn retry(self) -> Result<(), CommandError> {
        let url = self
            .remote
            .address(&["v1", "deliveries", &self.id.to_string(), "retry"])?;
        let text = self.remote.change(Method::POST, url, None).await?;
        let Some(delivery) = Document::new(text) else {
            return Ok(());
        };
        print_done("the delivery is sent again", |out| {
            if self.json {
                writeln!(out, "{}", delivery.json())
            } else {
                delivery.write_line::<DeliveryLine<'_>>(out)
            }
        })
    }
}

/// A delivery in one line.
#[derive(Deserialize)]
struct DeliveryLine<'a> {
    id: &'a str,
    message_id: String,
    #[serde(rename = "type")]
    event_type: String,
    endpoint_id: &'a str,
    state: &'a str,
    attempts: u32,
    next_attempt_at: Option<&'a str>,
    created_at: &'a str,
    reason: Option<String>,
}

impl fmt::Display for DeliveryLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            message_id,
            event_type,
            endpoint_id,
            state,
            attempts,
            next_attempt_at,
            created_at,
            reason,
        } = self;
        write!(
            f,
            "{id}  {created_at}  {state}  {}  {event_type}  {message_id}  {endpoint_id}",
            counted(*attempts, "attempt"),
        )?;
        if let Some(next) = next_attempt_at {
            write!(f, "  next {next}")?;
        }
        match reason {
            Some(reason) => write!(f, "  {reason:?}"),
            None => Ok(()),
        }
    }
}

/// A request in one line, with the bytes of the response as the server sent them.
#[derive(Deserialize)]
struct AttemptLine<'a> {
    number: u32,
    started_at: &'a str,
    #[serde(borrow)]
    duration_ms: &'a RawValue,
    status: Option<u16>,
    error: Option<String>,
    #[serde(borrow)]
    response: &'a RawValue,
}

impl fmt::Display for AttemptLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            started_at,
            duration_ms,
            status,
            error,
            response,
        } = self;
        write!(f, "{number}  {started_at}  {duration_ms} ms")?;
        if let Some(status) = status {
            write!(f, "  {status}  {response}")?;
        }
        match error {
            Some(error) => write!(f, "  {error:?}"),
            None => Ok(()),
        }
    }
}
