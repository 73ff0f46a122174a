//! What a notification carries.
//!
//! | message | notification |
//! |---|---|
//! | small | `<n>.<base64url>` of the topic's length (one byte), the topic, and the payload |
//! | large | `@<row>.<base64url>` of the topic |
//!
//! `<n>` makes a difference between the messages of one transaction: PostgreSQL sends one notification for several
//! that are [equal](https://www.postgresql.org/docs/current/sql-notify.html). Base64 passes through
//! a database of any encoding, and has neither NUL nor quotes.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::Topic;
use crate::broker::postgres::channels::channel;

/// The most that is sent in a notification: topic and payload with a byte before them. A
/// notification has at most 7,999 bytes; base64 makes 7,987 of this, and `<n>.` takes up to five.
const MAX_INLINE: usize = 5990;

/// A message as it is sent.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) channel: String,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// What comes after `<n>.`
    Inline(String),
    Stored {
        /// What comes after `@<row>.`
        topic: String,
        body: Bytes,
    },
}

impl Envelope {
    pub(super) fn new(topic: &Topic, payload: Bytes) -> Self {
        Self {
            channel: channel(topic),
            content: Content::new(topic, payload),
        }
    }
}

impl Content {
    fn new(topic: &Topic, payload: Bytes) -> Self {
        let name = topic.as_str().as_bytes();
        match u8::try_from(name.len()) {
            Ok(length) if 1 + name.len() + payload.len() <= MAX_INLINE => {
                let plain = [&[length], name, &payload].concat();
                Self::Inline(BASE64_URL_SAFE_NO_PAD.encode(plain))
            }
            _ => Self::Stored {
                topic: BASE64_URL_SAFE_NO_PAD.encode(name),
                body: payload,
            },
        }
    }
}

/// A notification that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Inline { topic: String, payload: Bytes },
    Stored { topic: String, row: i64 },
}

/// Reads a notification; `None` when it is none of ours.
pub(super) fn read(notification: &str) -> Option<Arrived> {
    let (number, encoded) = notification.split_once('.')?;
    let mut plain = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
    if let Some(row) = number.strip_prefix('@') {
        return Some(Arrived::Stored {
            topic: String::from_utf8(plain).ok()?,
            row: row.parse().ok()?,
        });
    }
    let end = 1 + usize::from(*plain.first()?);
    if plain.len() < end {
        return None;
    }
    let payload = Bytes::from(plain.split_off(end));
    plain.remove(0);
    Some(Arrived::Inline {
        topic: String::from_utf8(plain).ok()?,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MAX_TOPIC_BYTES;

    fn topic() -> impl Strategy<Value = Topic> {
        "[a-zé'\"]{1,9}\\.[a-z✓]{1,9}\\.[a-z.'\"é✓]{1,60}".prop_map(|name| name.parse().unwrap())
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read(
            topic in topic(),
            payload in proptest::collection::vec(any::<u8>(), 0..7000),
            number in 1..=9999_i64,
        ) {
            let payload = Bytes::from(payload);
            let (sent, arrived) = match Content::new(&topic, payload.clone()) {
                Content::Inline(encoded) => (
                    format!("{number}.{encoded}"),
                    Arrived::Inline { topic: topic.to_string(), payload },
                ),
                Content::Stored { topic: encoded, body } => {
                    prop_assert_eq!(body, payload);
                    (
                        format!("@{number}.{encoded}"),
                        Arrived::Stored { topic: topic.to_string(), row: number },
                    )
                }
            };
            prop_assert!(sent.len() < 8000, "{} bytes", sent.len());
            prop_assert_eq!(read(&sent), Some(arrived));
        }

        #[test]
        fn what_others_send_is_no_message_and_no_panic(text in ".*", tail in "[0-9@.A-Za-z_-]*") {
            let _any = read(&text);
            let _any = read(&format!("1.{tail}"));
            let _any = read(&format!("@{tail}"));
        }
    }

    #[test]
    fn the_largest_inline_message_fits_a_notification() {
        for length in [5, MAX_TOPIC_BYTES] {
            let topic: Topic = format!("a.b.{}", "x".repeat(length - 4)).parse().unwrap();
            let largest = vec![0; MAX_INLINE - 1 - length];
            let larger = vec![0; MAX_INLINE - length];
            let Content::Inline(encoded) = Content::new(&topic, largest.into()) else {
                panic!("stored");
            };
            assert!("9999.".len() + encoded.len() < 8000);
            assert!(matches!(
                Content::new(&topic, larger.into()),
                Content::Stored { .. }
            ));
        }
    }
}
