mod settings;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use tidings_notify::UserId;
use tidings_storage::explain::said_by_system;
use tidings_webhooks::EndpointId;

use self::settings::{Changes, NewEndpoint};
use super::document::Document;
use super::remote::Remote;
use super::{CommandError, note, print_done, print_secret};
use crate::settings::{DAY, count, time};
use crate::wire::Data;
use crate::wire::webhook::{RotatedSecret, TestDelivery};

/// Manages webhook endpoints: those of the operator, to which the events of all users are posted, or those of one user.
#[derive(Debug, Args)]
pub(super) struct Endpoint {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes an endpoint and prints its secret; it is shown only now
    Create(Box<Create>),
    /// Lists the endpoints, oldest first
    List(List),
    /// Shows an endpoint with its health
    Show(One),
    /// Changes the given settings of an endpoint
    Update(Box<Update>),
    /// Removes an endpoint and cancels its pending deliveries
    Delete(Silent),
    /// Enables an endpoint that is disabled
    Enable(One),
    /// Disables an endpoint: nothing is posted to it
    Disable(One),
    /// Gives an endpoint a new secret and prints it; it is shown only now
    Rotate(Rotate),
    /// Posts a test event to an endpoint and prints the id of its delivery
    Test(One),
    /// Posts again what failed, was cancelled or arrived while the endpoint was disabled
    Replay(Replay),
}

/// Whose endpoints, on which server.
#[derive(Debug, Args)]
struct Owner {
    /// The user whose endpoint it is [default: the operator]
    #[arg(long, value_name = "USER")]
    user: Option<UserId>,

    #[command(flatten)]
    remote: Remote,
}

const TO_CREATE: &str = "Examples:
  tidings endpoint create https://example.com/hook
  tidings endpoint create https://example.com/hook --user anna --type 'order.*'";

#[derive(Debug, Args)]
#[command(after_help = TO_CREATE)]
struct Create {
    #[command(flatten)]
    new: NewEndpoint,

    /// Prints the JSON of the server, with the id and the secret, instead of the secret alone
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    owner: Owner,
}

#[derive(Debug, Args)]
struct List {
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    owner: Owner,
}

/// An endpoint, for commands that print nothing of it.
#[derive(Debug, Args)]
struct Silent {
    /// The id of the endpoint, from its list
    #[arg(value_name = "ID")]
    id: EndpointId,

    #[command(flatten)]
    owner: Owner,
}

#[derive(Debug, Args)]
struct One {
    /// Prints the JSON of the server
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    endpoint: Silent,
}

const TO_UPDATE: &str = "Examples:
  tidings endpoint update ID --rate-limit 10 --timeout 5s
  tidings endpoint update ID --reset type,schedule";

#[derive(Debug, Args)]
#[command(after_help = TO_UPDATE)]
struct Update {
    #[command(flatten)]
    changes: Changes,

    #[command(flatten)]
    one: One,
}

#[derive(Debug, Args)]
struct Rotate {
    /// File with the new secret; `-` is standard input [default: the server makes one]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// How long the old secret signs too, up to 30d [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = time(0, 30 * DAY))]
    overlap: Option<Duration>,

    #[command(flatten)]
    one: One,
}

#[derive(Debug, Args)]
struct Replay {
    /// The time of the first event, such as 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME", required_unless_present = "stop")]
    since: Option<String>,

    /// The time after the last event [default: all of them]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// Maximum number of requests per second, 1 to 10000 [default: 10]
    #[arg(long, value_name = "COUNT", value_parser = count(1_u32, 10_000))]
    per_second: Option<u32>,

    /// Stops the replay that is under way
    #[arg(long, conflicts_with_all = ["since", "until", "per_second"])]
    stop: bool,

    #[command(flatten)]
    endpoint: Silent,
}

impl Endpoint {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        match self.command {
            Command::Create(create) => create.run().await,
            Command::List(list) => list.run().await,
            Command::Show(one) => one.show().await,
            Command::Update(update) => update.one.change(update.changes.body()?).await,
            Command::Delete(endpoint) => endpoint.delete().await,
            Command::Enable(one) => one.change(switch(true)).await,
            Command::Disable(one) => one.change(switch(false)).await,
            Command::Rotate(rotate) => rotate.run().await,
            Command::Test(one) => one.test().await,
            Command::Replay(replay) => replay.run().await,
        }
    }
}

/// The fields of a request.
type Body = Map<String, Value>;

fn switch(enabled: bool) -> Body {
    Body::from_iter([("enabled".to_owned(), enabled.into())])
}

impl Owner {
    /// The URL of their endpoints, or of what is below.
    fn address(&self, path: &[&str]) -> Result<Url, CommandError> {
        let mut all = vec!["v1"];
        if let Some(user) = &self.user {
            all.extend(["users", user.as_str()]);
        }
        all.push("endpoints");
        all.extend(path);
        self.remote.address(&all)
    }
}

impl Silent {
    fn address(&self, path: &[&str]) -> Result<Url, CommandError> {
        let id = self.id.to_string();
        self.owner.address(&[&[id.as_str()], path].concat())
    }

    /// Makes a request that changes something; returns the response, if it is JSON.
    async fn change(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Body>,
    ) -> Result<Option<Document>, CommandError> {
        let url = self.address(path)?;
        let body: Option<Box<RawValue>> = body.map(to_raw_value).transpose()?;
        let changed = self.owner.remote.change(method, url, body.as_deref());
        Ok(Document::new(changed.await?))
    }

    async fn delete(&self) -> Result<(), CommandError> {
        self.change(Method::DELETE, &[], None).await?;
        note(format_args!("removed {}", self.id));
        Ok(())
    }
}

impl Create {
    async fn run(self) -> Result<(), CommandError> {
        let body = to_raw_value(&self.new.body()?)?;
        let url = self.owner.address(&[])?;
        let created: Document = self.owner.remote.create(url, &body).await?;
        let Some(Created { id, secret }) = created.parts() else {
            // Of another version. What it says is all there is.
            return print_done("the endpoint was made", |out| {
                writeln!(out, "{}", created.json())
            });
        };
        let shown = if self.json { created.json() } else { &secret };
        if let Err(error) = print_secret(shown) {
            let owner = self.owner;
            return Err(Silent { id, owner }.take_back(&error).await);
        }
        if !self.json {
            match created.parts::<EndpointLine<'_>>() {
                Some(line) => note(format_args!("created {line}")),
                None => note(format_args!("created {}", created.json())),
            }
        }
        Ok(())
    }
}

/// What is needed of the response that makes an endpoint.
#[derive(Deserialize)]
struct Created {
    id: EndpointId,
    secret: String,
}

impl Silent {
    /// Removes an endpoint whose secret could not be shown, since it will not be shown again; returns the error to
    /// report.
    async fn take_back(&self, error: &std::io::Error) -> CommandError {
        let problem = format!("cannot write the secret: {}", said_by_system(error));
        match self.change(Method::DELETE, &[], None).await {
            Ok(_) => format!("{problem}; the endpoint is removed again").into(),
            Err(_) => format!("{problem}; remove it: tidings endpoint delete {self}").into(),
        }
    }
}

/// The arguments that name the endpoint.
impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        match &self.owner.user {
            Some(user) => write!(f, " --user {user}"),
            None => Ok(()),
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CommandError> {
        let url = self.owner.address(&[])?;
        let Data::<Vec<Document>> { data } = self.owner.remote.get(url).await?;
        if data.is_empty() && !self.json {
            writeln!(std::io::stderr(), "no endpoints")?;
        }
        let mut out = std::io::stdout().lock();
        for endpoint in &data {
            if self.json {
                writeln!(out, "{}", endpoint.json())?;
            } else {
                endpoint.write_line::<EndpointLine<'_>>(&mut out)?;
            }
        }
        Ok(())
    }
}

impl One {
    async fn show(self) -> Result<(), CommandError> {
        let url = self.endpoint.address(&[])?;
        let remote = &self.endpoint.owner.remote;
        let endpoint: Document = remote.get(url).await?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", endpoint.json())?;
        } else {
            endpoint.write_fields(&mut out)?;
        }
        Ok(())
    }

    async fn change(self, body: Body) -> Result<(), CommandError> {
        let changed = self.endpoint.change(Method::PATCH, &[], Some(&body));
        let Some(endpoint) = changed.await? else {
            return Ok(());
        };
        print_done("the change was made", |out| {
            if self.json {
                writeln!(out, "{}", endpoint.json())
            } else {
                endpoint.write_line::<EndpointLine<'_>>(out)
            }
        })
    }

    async fn test(self) -> Result<(), CommandError> {
        let tested = self.endpoint.change(Method::POST, &["test"], None).await?;
        let Some(tested) = tested else {
            return Ok(());
        };
        print_done("the test event is being sent", |out| match tested.parts() {
            Some(TestDelivery { delivery_id }) if !self.json => writeln!(out, "{delivery_id}"),
            _ => writeln!(out, "{}", tested.json()),
        })
    }
}

impl Rotate {
    async fn run(self) -> Result<(), CommandError> {
        let mut body = Body::new();
        if let Some(file) = &self.secret_file {
            body.insert("secret".to_owned(), settings::read_secret(file)?.into());
        }
        if let Some(overlap) = self.overlap {
            let overlap = settings::milliseconds("overlap", overlap)?;
            body.insert("overlap_ms".to_owned(), overlap.into());
        }
        let One { json, endpoint } = self.one;
        let path = ["secret", "rotate"];
        let rotated = endpoint.change(Method::POST, &path, Some(&body)).await?;
        let Some(rotated) = rotated else {
            return Ok(());
        };
        let secret = rotated.parts().map(|RotatedSecret { secret }| secret);
        let shown = secret.filter(|_| !json);
        if let Err(error) = print_secret(shown.as_deref().unwrap_or(rotated.json())) {
            let problem = said_by_system(&error);
            return Err(format!(
                "cannot write the secret: {problem}; the endpoint has it already: make another with tidings endpoint \
                 rotate {endpoint}"
            )
            .into());
        }
        if !json {
            note(format_args!("gave {} a new secret", endpoint.id));
        }
        Ok(())
    }
}

impl Replay {
    async fn run(self) -> Result<(), CommandError> {
        let endpoint = self.endpoint;
        if self.stop {
            endpoint.change(Method::DELETE, &["replay"], None).await?;
            note(format_args!("no replay to {} is under way", endpoint.id));
            return Ok(());
        }
        let mut body = Body::from_iter([("since".to_owned(), self.since.into())]);
        if let Some(until) = self.until {
            body.insert("until".to_owned(), until.into());
        }
        if let Some(per_second) = self.per_second {
            body.insert("per_second".to_owned(), per_second.into());
        }
        endpoint
            .change(Method::POST, &["replay"], Some(&body))
            .await?;
        note(format_args!("the replay to {} has begun", endpoint.id));
        Ok(())
    }
}

/// An endpoint in one line.
#[derive(Deserialize)]
struct EndpointLine<'a> {
    id: &'a str,
    user_id: Option<String>,
    url: String,
    description: String,
    event_types: Vec<String>,
    enabled: bool,
    disabled_because: Option<String>,
}

impl fmt::Display for EndpointLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.enabled { "enabled" } else { "disabled" };
        write!(f, "{}  {state}  {}", self.id, self.url)?;
        if self.event_types.is_empty() {
            f.write_str("  every type")?;
        } else {
            write!(f, "  {}", self.event_types.join(","))?;
        }
        if let Some(user) = &self.user_id {
            write!(f, "  user {user}")?;
        }
        if let Some(reason) = &self.disabled_because {
            write!(f, "  {reason:?}")?;
        }
        if self.description.is_empty() {
            return Ok(());
        }
        // It may have spaces, and anything else.
        write!(f, "  {:?}", self.description)
    }
}
