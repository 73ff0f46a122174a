use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::Topic;

/// The channel of a topic. Channels have at most 63 bytes; PostgreSQL cuts off the rest.
pub(super) fn channel(topic: &Topic) -> String {
    let hash = Sha256::digest(topic.as_str());
    let mut channel = String::from("tidings_");
    for byte in &hash[..16] {
        // Writing to a string does not fail.
        let _written = write!(channel, "{byte:02x}");
    }
    channel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_short_and_differ() {
        let long = format!("a.b.{}", "x".repeat(250));
        let [one, other] = ["y", "Y"].map(|end| format!("{long}{end}").parse().unwrap());
        assert_ne!(channel(&one), channel(&other));
        assert_eq!(channel(&one).len(), 40);
        // `printf a.b.c | sha256sum`
        let topic = "a.b.c".parse().unwrap();
        assert_eq!(channel(&topic), "tidings_845e30448809e2bc8958eb025bfc7952");
    }
}
