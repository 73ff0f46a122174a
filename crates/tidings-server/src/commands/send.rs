use std::io::Write;

use clap::Args;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tidings_notify::UserId;
use tidings_storage::idempotency::IdempotencyKey;

use super::document::Document;
use super::remote::{Remote, Unknown, new_key};
use super::{CommandError, note, print_done};
use crate::wire::Data;
use crate::wire::notification::MessagePayload;

const EXAMPLES: &str = "Examples:
  tidings send anna \"Hello\"
  tidings send anna,ben '{\"order\":17}' --type order.paid";

/// Sends a notification.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Send {
    /// The user; several users separated by commas
    #[arg(value_name = "USER", value_parser = users)]
    users: Users,

    /// JSON becomes the payload as it is, any other text becomes {"message": …}
    #[arg(value_name = "TEXT")]
    text: String,

    /// Type of the notification
    #[arg(long = "type", default_value = "notification", value_name = "TYPE")]
    event_type: String,

    /// Idempotency key, 1 to 255 visible ASCII characters: for 24 hours, the same command with the same idempotency key
    /// sends nothing again and prints what was sent [default: another one for each command]
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<String>,

    #[command(flatten)]
    remote: Remote,
}

fn idempotency_key(text: &str) -> Result<String, &'static str> {
    let key = IdempotencyKey::parse(text);
    key.map(|_| text.to_owned())
        .ok_or("expected 1 to 255 visible ASCII characters")
}

/// One argument, so that a missing text is not taken for a missing user.
#[derive(Debug, Clone)]
struct Users(Vec<UserId>);

fn users(text: &str) -> Result<Users, String> {
    let names: Vec<_> = text.split(',').collect();
    let is_missing = |name: &str| name.trim().is_empty();
    if let [first, .., last] = &names[..] {
        if is_missing(first) {
            return Err("a user is missing before the first comma".to_owned());
        } else if is_missing(last) {
            return Err("a user is missing after the last comma".to_owned());
        } else if names.iter().any(|name| is_missing(name)) {
            return Err("a user is missing between two commas".to_owned());
        }
    }
    let users = names.into_iter().map(UserId::new).collect::<Result<_, _>>();
    users.map(Users).map_err(|error| error.to_string())
}

#[derive(Serialize)]
struct Body<'a> {
    user_ids: &'a [UserId],
    #[serde(rename = "type")]
    event_type: &'a str,
    payload: &'a RawValue,
}

impl Send {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        // Kept as text: a parsed value would lose digits and order.
        let json = RawValue::from_string(self.text.clone());
        let payload = match &json {
            Ok(json) => json.clone(),
            Err(_) => to_raw_value(&MessagePayload {
                message: &self.text,
            })?,
        };
        let body = Body {
            user_ids: &self.users.0,
            event_type: &self.event_type,
            payload: &payload,
        };
        let url = self.remote.address(&["v1", "notifications"])?;
        let body = to_raw_value(&body)?;
        let key = self.idempotency_key.unwrap_or_else(new_key);
        let sent = self.remote.create_once(&key, url, &body).await;
        let Data::<Vec<Document>> { data: sent } = sent.map_err(|error| match error.downcast() {
            Ok(lost) => {
                let Unknown(why) = *lost;
                format!(
                    "{why}; the notification may have been accepted: sent again with --idempotency-key {key}, there is no \
                     second one"
                )
                .into()
            }
            Err(error) => error,
        })?;
        if let Err(error) = json
            && self.text.trim_start().starts_with(['{', '['])
        {
            note(format_args!(
                "sent as text: it looks like JSON, but is not valid: {error}"
            ));
        }
        let done = match sent.len() {
            1 => "the notification was sent",
            _ => "the notifications were sent",
        };
        print_done(done, |out| {
            for notification in &sent {
                writeln!(out, "{}", notification.json())?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_users_without_one_of_them_says_where_it_is_missing() {
        let refused = |text: &str| users(text).unwrap_err();
        assert_eq!(users("anna,ben").unwrap().0.len(), 2);
        for list in ["anna,,ben", "anna, ,ben", "anna,ben,,carl"] {
            assert_eq!(refused(list), "a user is missing between two commas");
        }
        assert_eq!(refused(",anna"), "a user is missing before the first comma");
        assert_eq!(refused("anna,"), "a user is missing after the last comma");
        assert!(!refused("").contains("comma"));
    }
}
