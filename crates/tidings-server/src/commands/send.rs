use std::io::Write;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::CommandError;
use super::remote::Remote;

/// Sends a notification.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// Who gets it; several users with commas between
    #[arg(value_name = "USER", value_delimiter = ',', required = true)]
    users: Vec<String>,

    /// What to say: JSON becomes the payload as it is, anything else becomes {"message": …}
    #[arg(value_name = "TEXT")]
    text: String,

    /// What kind of thing happened
    #[arg(long = "type", default_value = "notification", value_name = "TYPE")]
    event_type: String,

    #[command(flatten)]
    remote: Remote,
}

impl Send {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let payload: Value = match serde_json::from_str(&self.text) {
            Ok(payload) => payload,
            Err(_) => json!({ "message": self.text }),
        };
        let body = json!({ "user_ids": self.users, "type": self.event_type, "payload": payload });
        let url = self.remote.address(&["v1", "notifications"])?;
        let answer = self.remote.call(Method::POST, url, Some(&body)).await?;
        let mut out = std::io::stdout().lock();
        for notification in answer["data"].as_array().into_iter().flatten() {
            writeln!(out, "{notification}")?;
        }
        Ok(())
    }
}
