//! Hints as text: who sent them, and the users that have changed, a line each.

use crate::{UserId, Wake};

/// Longest message, in bytes: a notification of PostgreSQL has less than 8000.
const MAX_BYTES: usize = 7900;

/// What comes between the parts of a message, and is in no name.
const SEPARATOR: char = '\n';

/// In place of names: any log may have changed.
const ALL: &str = "*";

/// A name that no sender has: a script has an empty one.
#[cfg(feature = "redis")]
pub(super) const NO_SENDER: &str = "-";

/// A new name for a sender, so that it can ignore its own messages.
pub(super) fn sender() -> String {
    format!("{:016x}", crate::Epoch::random().as_u64())
}

/// The messages for some hints.
pub(super) fn write(sender: &str, wakes: &[Wake]) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for wake in wakes {
        let name = match wake {
            Wake::Changed(user) => user.as_str(),
            Wake::Lost | Wake::Reconnected => return vec![format!("{sender}{SEPARATOR}{ALL}")],
        };
        match messages.last_mut() {
            Some(last) if last.len() + 1 + name.len() <= MAX_BYTES => {
                last.push(SEPARATOR);
                last.push_str(name);
            }
            _ => messages.push(format!("{sender}{SEPARATOR}{name}")),
        }
    }
    messages
}

/// The hints of a message. Those of the sender `own` are ignored, and so is text that is no message.
pub(super) fn read(message: &str, own: &str) -> Vec<Wake> {
    match message.split_once(SEPARATOR) {
        None => Vec::new(),
        Some((sender, _)) if sender == own => Vec::new(),
        Some((_, ALL)) => vec![Wake::Lost],
        Some((_, names)) => {
            let users = names.split(SEPARATOR).map(UserId::new);
            users.filter_map(Result::ok).map(Wake::Changed).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(count: usize, length: usize) -> Vec<Wake> {
        (0..count)
            .map(|number| Wake::Changed(UserId::new(format!("{number:0length$}")).unwrap()))
            .collect()
    }

    #[test]
    fn every_user_is_named_in_messages_that_fit() {
        for (count, length) in [(0, 1), (1, 1), (3, 255), (100, 255), (1024, 10)] {
            let wakes = changed(count, length);
            let mut heard = Vec::new();
            for message in write("me", &wakes) {
                assert!(message.len() < 8000);
                assert_eq!(read(&message, "me"), []);
                heard.extend(read(&message, "you"));
            }
            assert_eq!(heard, wakes);
        }
    }

    #[test]
    fn one_that_is_lost_means_all() {
        let wakes = [changed(3, 10), vec![Wake::Lost]].concat();
        let messages = write("me", &wakes);
        assert_eq!(messages.len(), 1);
        assert_eq!(read(&messages[0], "you"), [Wake::Lost]);
    }

    #[test]
    fn what_strangers_send_is_ignored() {
        assert_eq!(read("", "me"), []);
        assert_eq!(read("hello", "me"), []);
        assert_eq!(read("x\n", "me"), []);
    }
}
