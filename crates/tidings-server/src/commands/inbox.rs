use std::io::Write;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_notify::{MAX_INBOX_LIMIT, UserId};

use super::CommandError;
use super::document::Document;
use super::notification::NotificationLine;
use super::remote::Remote;
use crate::settings::count;

/// Shows a user's inbox, newest first.
#[derive(Debug, Args)]
pub(super) struct Inbox {
    /// The user
    #[arg(value_name = "USER")]
    user: UserId,

    /// Shows only unread notifications
    #[arg(long)]
    unread: bool,

    /// Shows only notifications of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// How many notifications to show, 1 to 1000
    #[arg(long, default_value = "20", value_name = "COUNT", value_parser = count(1, MAX_INBOX_LIMIT))]
    limit: usize,

    /// Marks this notification as read, instead of listing
    #[arg(long, value_name = "ID", conflicts_with_all = ["read_all", "unread", "event_type", "limit"])]
    read: Option<String>,

    /// Marks all notifications as read, instead of listing
    #[arg(long, conflicts_with_all = ["unread", "event_type", "limit"])]
    read_all: bool,

    /// Prints one JSON object a line: each notification, or the counts after a change
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: Remote,
}

/// A page of the inbox.
#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Document>,
    unread: u64,
}

/// The counts that a change returns.
#[derive(Debug, Deserialize)]
struct Unread {
    unread: u64,
}

impl Inbox {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        if let Some(id) = &self.read {
            return self.mark(&[id, "read"]).await;
        }
        if self.read_all {
            return self.mark(&["read-all"]).await;
        }
        let mut url = self
            .remote
            .address(&["v1", "users", self.user.as_str(), "notifications"])?;
        url.query_pairs_mut()
            .append_pair("limit", &self.limit.to_string());
        if self.unread {
            url.query_pairs_mut().append_pair("unread", "true");
        }
        if let Some(event_type) = &self.event_type {
            url.query_pairs_mut().append_pair("type", event_type);
        }
        let page: Page = self.remote.get(url).await?;
        let mut out = std::io::stdout().lock();
        for notification in page.data {
            if self.json {
                writeln!(out, "{}", notification.json())?;
            } else {
                notification.write_line::<NotificationLine<'_>>(&mut out)?;
            }
        }
        if !self.json {
            writeln!(out, "{} unread", page.unread)?;
        }
        Ok(())
    }

    async fn mark(&self, what: &[&str]) -> Result<(), CommandError> {
        let mut path = vec!["v1", "users", self.user.as_str(), "notifications"];
        path.extend(what);
        let url = self.remote.address(&path)?;
        let counts: Box<RawValue> = self.remote.change_once(url).await?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{counts}")?;
        } else {
            let Unread { unread } = serde_json::from_str(counts.get())?;
            writeln!(out, "{unread} unread")?;
        }
        Ok(())
    }
}
