//! The scripts of presence.

tidings_redis::scripts! {
    /// A script. Its text says what it takes and returns. What takes no room to speak of continues where the
    /// server has none left.
    pub(super) enum Script in "src/presence/redis/lua" {
        Update = "": "keys" "users" "update",
        Beat = " flags=allow-oom": "keys" "users" "reap" "beat",
        End = " flags=allow-oom": "keys" "end",
        Online = " flags=no-writes": "keys" "alive" "online",
        Locate = " flags=no-writes": "keys" "alive" "locate",
        Transitions = " flags=allow-oom": "keys" "users" "reap" "transitions",
    }
}

pub(super) type Scripts = tidings_redis::Scripts<Script>;

#[cfg(test)]
mod tests {
    use tidings_redis::Script as _;

    use super::*;
    use crate::presence::{LeaseId, MAX_UPDATE};

    /// What stands in Rust and in the scripts is the same.
    #[test]
    fn the_scripts_know_the_same_sizes() {
        let has = |script: Script, line: &str| script.code().lines().any(|it| it == line);
        let width = LeaseId::from(u64::MAX).to_string().len();
        assert!(has(Script::Update, &format!("local WIDTH = {width}")));
        assert!(has(Script::Beat, &format!("local CHUNK = {MAX_UPDATE}")));
    }
}
