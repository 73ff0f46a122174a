use std::sync::Arc;

use crate::{Pattern, Topic};

/// What in Redis [means something](https://redis.io/docs/latest/commands/psubscribe/) in a pattern.
/// All else stands for itself.
const SPECIAL: [char; 4] = ['\\', '*', '?', '['];

/// What topics and patterns are called in Redis: `<prefix>:<topic>`.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    prefix: Arc<str>,
}

impl Channels {
    pub(super) fn new(prefix: Arc<str>) -> Self {
        Self { prefix }
    }

    pub(super) fn channel(&self, topic: &Topic) -> String {
        [&*self.prefix, ":", topic.as_str()].concat()
    }

    /// The topic's name.
    pub(super) fn topic<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        self.strip(str::from_utf8(channel).ok()?)
    }

    /// What stands for the channels of the topics that match.
    pub(super) fn glob(&self, pattern: &Pattern) -> String {
        let (namespace, name) = pattern.split();
        let mut glob = String::new();
        for literal in [&*self.prefix, ":", namespace] {
            escape(literal, &mut glob);
        }
        for (place, piece) in name.split('*').enumerate() {
            if place > 0 {
                glob.push('*');
            }
            escape(piece, &mut glob);
        }
        glob
    }

    /// Reads what [`glob`](Self::glob) has made.
    pub(super) fn pattern(&self, glob: &[u8]) -> Option<Pattern> {
        let mut text = String::new();
        let mut characters = str::from_utf8(glob).ok()?.chars();
        while let Some(character) = characters.next() {
            text.push(match character {
                '\\' => characters.next()?,
                plain => plain,
            });
        }
        self.strip(&text)?.parse().ok()
    }

    fn strip<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(&*self.prefix)?.strip_prefix(':')
    }
}

fn escape(literal: &str, into: &mut String) {
    for character in literal.chars() {
        if SPECIAL.contains(&character) {
            into.push('\\');
        }
        into.push(character);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_asterisks_of_the_name_are_special() {
        let channels = Channels::new("p*".into());
        let pattern: Pattern = "a?.[b].c\\d*[e]*".parse().unwrap();
        assert_eq!(channels.glob(&pattern), r"p\*:a\?.\[b].c\\d*\[e]*");
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_recognised(
            prefix in ".{0,4}",
            text in "[a*?\\[\\]\\\\é]{1,4}\\.[a*?]{1,4}\\.[a*?\\[\\]\\\\^.é-]{1,9}",
        ) {
            let channels = Channels::new(prefix.into());
            let pattern: Pattern = text.parse().unwrap();
            let glob = channels.glob(&pattern);
            prop_assert_eq!(channels.pattern(glob.as_bytes()), Some(pattern));
            let topic: Topic = text.parse().unwrap();
            let channel = channels.channel(&topic);
            prop_assert_eq!(channels.topic(channel.as_bytes()), Some(topic.as_str()));
        }

        #[test]
        fn what_others_ask_for_is_no_panic(text in ".*", bytes in any::<Vec<u8>>()) {
            let channels = Channels::new("p".into());
            let _any = channels.pattern(format!("p:{text}").as_bytes());
            let _any = channels.pattern(&bytes);
            let _any = channels.topic(&bytes);
        }
    }
}
