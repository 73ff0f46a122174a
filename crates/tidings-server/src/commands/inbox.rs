use std::io::Write;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_notify::{MAX_INBOX_LIMIT, UserId};

use super::document::Document;
use super::notification::NotificationLine;
use super::remote::Remote;
use super::{CommandError, print_done};
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
    /// Where the next page begins: one ends early if its payloads are large.
    next: Option<String>,
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
        let mut page = self.page(self.limit, None).await?;
        // As it was when the list began.
        let unread = page.unread;
        let mut left = self.limit;
        loop {
            self.show(&page.data)?;
            left = left.saturating_sub(page.data.len());
            match page.next {
                Some(next) if left > 0 => page = self.page(left, Some(&next)).await?,
                _ => break,
            }
        }
        if !self.json {
            writeln!(std::io::stdout(), "{unread} unread")?;
        }
        Ok(())
    }

    /// Asks for at most so many notifications, from a cursor on or from the newest.
    async fn page(&self, limit: usize, cursor: Option<&str>) -> Result<Page, CommandError> {
        let mut url = self
            .remote
            .address(&["v1", "users", self.user.as_str(), "notifications"])?;
        url.query_pairs_mut()
            .append_pair("limit", &limit.to_string());
        if self.unread {
            url.query_pairs_mut().append_pair("unread", "true");
        }
        if let Some(event_type) = &self.event_type {
            url.query_pairs_mut().append_pair("type", event_type);
        }
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        self.remote.get(url).await
    }

    fn show(&self, notifications: &[Document]) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        for notification in notifications {
            if self.json {
                writeln!(out, "{}", notification.json())?;
            } else {
                notification.write_line::<NotificationLine<'_>>(&mut out)?;
            }
        }
        Ok(())
    }

    async fn mark(&self, what: &[&str]) -> Result<(), CommandError> {
        let mut path = vec!["v1", "users", self.user.as_str(), "notifications"];
        path.extend(what);
        let url = self.remote.address(&path)?;
        let counts: Box<RawValue> = self.remote.change_once(url).await?;
        let unread = serde_json::from_str(counts.get());
        print_done("the change was made", |out| match unread {
            Ok(Unread { unread }) if !self.json => writeln!(out, "{unread} unread"),
            _ => writeln!(out, "{counts}"),
        })
    }
}
