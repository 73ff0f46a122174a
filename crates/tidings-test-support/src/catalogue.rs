//! Every behaviour by path, for senders in any language to be pointed at.
//!
//! [`script`] serves them, and the example `hostile_receiver` is a server that does nothing else.
//! [`ENTRIES`] says what each path does and what a good sender makes of it; a request for `/`
//! returns the same as text.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::{Behaviour, Head, Reply, Script};

/// How long dripping behaviours wait before each byte: shorter than any sensible read timeout.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest delay that `/slow/{seconds}` takes.
const MAX_DELAY_SECONDS: u64 = 600;

/// Values of `retry-after` that senders have stumbled over, by the name that
/// `/retry-after/{kind}` takes.
pub const RETRY_AFTER: &[(&str, &str)] = &[
    ("seconds", "2"),
    ("huge", "1000000000"),
    ("overflowing", "99999999999999999999999999"),
    ("future-date", "Fri, 31 Dec 2100 23:59:59 GMT"),
    ("past-date", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ("impossible-date", "Mon, 30 Feb 2026 25:61:61 GMT"),
    ("fraction", "1.5"),
    ("negative", "-1"),
    ("garbage", "soon"),
    ("empty", ""),
];

/// One path of the catalogue.
#[derive(Clone, Copy)]
pub struct Entry {
    path: &'static str,
    example: &'static str,
    does: &'static str,
    wanted: &'static str,
    behaviour: fn(&Head, &str) -> Option<Behaviour>,
}

impl Entry {
    /// The path, with its parameter in braces when it has one.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The path with a value in the place of the parameter.
    pub fn example(&self) -> &'static str {
        self.example
    }

    /// What the receiver does.
    pub fn does(&self) -> &'static str {
        self.does
    }

    /// What a good sender does then.
    pub fn wanted(&self) -> &'static str {
        self.wanted
    }

    /// The value of the parameter when the path is this entry's; empty when it takes none.
    fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once('{') {
            Some((prefix, _)) => path.strip_prefix(prefix),
            None => (path == self.path).then_some(""),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Treats each request by its path. A path that is not in the catalogue gets 404 and the list, a
/// parameter that makes no sense gets 400.
pub fn script() -> Script {
    Script::by(|head| {
        let path = head.path();
        if path == "/" {
            return text(StatusCode::OK, list());
        }
        for entry in ENTRIES {
            if let Some(parameter) = entry.parameter(path) {
                return (entry.behaviour)(head, parameter).unwrap_or_else(|| {
                    let reason = format!("expected {}: it {}\n", entry.path, entry.does);
                    text(StatusCode::BAD_REQUEST, reason)
                });
            }
        }
        text(StatusCode::NOT_FOUND, list())
    })
}

/// All entries as a table in plain text.
pub fn list() -> String {
    let line = |path, does, wanted| format!("{path:<24} {does:<60} {wanted}\n");
    let mut list = line("PATH", "THE RECEIVER", "A GOOD SENDER");
    for entry in ENTRIES {
        list.push_str(&line(entry.path, entry.does, entry.wanted));
    }
    list.push('\n');
    for (kind, value) in RETRY_AFTER {
        list.push_str(&line("kind of retry-after", kind, value));
    }
    list
}

fn text(status: StatusCode, body: String) -> Behaviour {
    Reply::new(status)
        .with_header("content-type", "text/plain; charset=utf-8")
        .with_body(body)
        .into()
}

/// Every path, its meaning and what it does.
pub const ENTRIES: &[Entry] = &[
    Entry {
        path: "/ok",
        example: "/ok",
        does: "sends 200",
        wanted: "success",
        behaviour: |_, _| Some(Reply::ok().with_body("ok").into()),
    },
    Entry {
        path: "/status/{code}",
        example: "/status/503",
        does: "sends this status, 200 to 599",
        wanted: "retries 408, 425, 429 and 5xx; gives up on other failures",
        behaviour: |_, code| {
            let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
            Some(Reply::new(StatusCode::from_u16(code).ok()?).into())
        },
    },
    Entry {
        path: "/gone",
        example: "/gone",
        does: "sends 410",
        wanted: "disables the endpoint, keeps its backlog, notifies the owner",
        behaviour: |_, _| Some(Reply::gone().into()),
    },
    Entry {
        path: "/retry-after/{kind}",
        example: "/retry-after/huge",
        does: "sends 429 with a retry-after of one of the kinds below",
        wanted: "never earlier than asked, capped, never a panic",
        behaviour: |_, kind| {
            let (_, value) = RETRY_AFTER.iter().find(|(name, _)| *name == kind)?;
            Some(Reply::retry_after(*value).into())
        },
    },
    Entry {
        path: "/never-replies",
        example: "/never-replies",
        does: "reads the request and never replies",
        wanted: "ends the attempt at its first-byte deadline",
        behaviour: |_, _| Some(Behaviour::NeverReply),
    },
    Entry {
        path: "/slow/{seconds}",
        example: "/slow/0",
        does: "sends 200 after so many seconds, at most 600",
        wanted: "holds up no other endpoint meanwhile",
        behaviour: |_, seconds| {
            let seconds = seconds.parse().ok().filter(|s| *s <= MAX_DELAY_SECONDS)?;
            let delay = Duration::from_secs(seconds);
            Some(Reply::ok().with_delay(delay).into())
        },
    },
    Entry {
        path: "/drips-head",
        example: "/drips-head",
        does: "sends one byte of an endless header every 500 ms",
        wanted: "ends the attempt at its total deadline",
        behaviour: |_, _| Some(Behaviour::DripHead { pause: PAUSE }),
    },
    Entry {
        path: "/drips-body",
        example: "/drips-body",
        does: "sends 200, then one byte of the body every 500 ms",
        wanted: "success: the status decides; drops the connection soon",
        behaviour: |_, _| Some(Behaviour::DripBody { pause: PAUSE }),
    },
    Entry {
        path: "/endless-body",
        example: "/endless-body",
        does: "sends 200 with chunks that never end",
        wanted: "success; reads a few KiB and drops the connection",
        behaviour: |_, _| Some(Behaviour::EndlessBody),
    },
    Entry {
        path: "/huge-body",
        example: "/huge-body",
        does: "sends 200 with a body of 300 MB",
        wanted: "success; keeps the head of it, does not drain the rest",
        behaviour: |_, _| Some(Behaviour::HugeBody { bytes: 300_000_000 }),
    },
    Entry {
        path: "/gzip-bomb",
        example: "/gzip-bomb",
        does: "sends 200 with 1 MiB of gzip that is 1 GiB decoded",
        wanted: "success; never decodes",
        behaviour: |_, _| Some(Behaviour::GzipBomb),
    },
    Entry {
        path: "/redirect",
        example: "/redirect",
        does: "sends 302 to /ok",
        wanted: "a failure; does not follow, records the location",
        behaviour: |_, _| Some(Reply::redirect(StatusCode::FOUND, "/ok").into()),
    },
    Entry {
        path: "/redirect-loop",
        example: "/redirect-loop",
        does: "sends 307 to itself",
        wanted: "one request, a failure",
        behaviour: |head, _| {
            let here = Bytes::from(head.target.clone());
            Some(Reply::redirect(StatusCode::TEMPORARY_REDIRECT, here).into())
        },
    },
    Entry {
        path: "/redirect-to-metadata",
        example: "/redirect-to-metadata",
        does: "sends 308 to the metadata service of a cloud",
        wanted: "a failure; never connects there",
        behaviour: |_, _| {
            let metadata = "http://169.254.169.254/latest/meta-data/";
            Some(Reply::redirect(StatusCode::PERMANENT_REDIRECT, metadata).into())
        },
    },
    Entry {
        path: "/resets-before-body",
        example: "/resets-before-body",
        does: "resets the connection after the head",
        wanted: "retries",
        behaviour: |_, _| Some(Behaviour::ResetBeforeBody),
    },
    Entry {
        path: "/resets-after-body",
        example: "/resets-after-body",
        does: "resets the connection after the whole request",
        wanted: "retries, marked ambiguous, with the same webhook-id",
        behaviour: |_, _| Some(Behaviour::ResetAfterBody),
    },
    Entry {
        path: "/hangs-up",
        example: "/hangs-up",
        does: "reads the whole request and closes without a reply",
        wanted: "retries, marked ambiguous, with the same webhook-id",
        behaviour: |_, _| Some(Behaviour::HangUp),
    },
    Entry {
        path: "/half-head",
        example: "/half-head",
        does: "closes in the middle of the status line",
        wanted: "retries, marked ambiguous, with the same webhook-id",
        behaviour: |_, _| Some(Behaviour::HalfHead),
    },
    Entry {
        path: "/half-body",
        example: "/half-body",
        does: "sends 200 and closes in the middle of the body",
        wanted: "success: the status decides",
        behaviour: |_, _| Some(Behaviour::HalfBody),
    },
    Entry {
        path: "/endless-headers",
        example: "/endless-headers",
        does: "sends 200 with headers that never end",
        wanted: "a failed attempt, within bounds",
        behaviour: |_, _| Some(Behaviour::EndlessHeaders),
    },
    Entry {
        path: "/huge-header",
        example: "/huge-header",
        does: "sends 200 with one header of 100 MB",
        wanted: "a failed attempt, within bounds",
        behaviour: |_, _| Some(Behaviour::HugeHeader { bytes: 100_000_000 }),
    },
    Entry {
        path: "/interim",
        example: "/interim",
        does: "sends 103 three times, then 200",
        wanted: "success",
        behaviour: |_, _| Some(interim(3)),
    },
    Entry {
        path: "/endless-interim",
        example: "/endless-interim",
        does: "sends 103 without end",
        wanted: "a failed attempt, within bounds",
        behaviour: |_, _| Some(interim(u64::MAX)),
    },
    Entry {
        path: "/closes",
        example: "/closes",
        does: "sends 200, announces connection: close, and closes",
        wanted: "success; a new connection next time",
        behaviour: |_, _| Some(Reply::ok().with_close().into()),
    },
    Entry {
        path: "/closes-silently",
        example: "/closes-silently",
        does: "sends 200 and closes without having announced it",
        wanted: "success; the stale connection costs the next message no attempt",
        behaviour: |_, _| Some(Reply::ok().with_silent_close().into()),
    },
    Entry {
        path: "/not-http",
        example: "/not-http",
        does: "replies in another protocol",
        wanted: "a failed attempt, retried",
        behaviour: |_, _| {
            let greeting = Bytes::from_static(b"SSH-2.0-OpenSSH_9.2p1\r\n");
            Some(Behaviour::Raw(greeting))
        },
    },
];

fn interim(count: u64) -> Behaviour {
    Behaviour::Interim {
        status: StatusCode::EARLY_HINTS,
        count,
        then: Reply::ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::{HeaderMap, Method};

    use super::*;

    fn treated(target: &str) -> Behaviour {
        script().decide(&Head {
            connection: 1,
            method: Method::POST,
            target: target.to_owned(),
            headers: HeaderMap::new(),
        })
    }

    fn status(behaviour: &Behaviour) -> Option<u16> {
        match behaviour {
            Behaviour::Reply(reply) => Some(reply.status.as_u16()),
            _ => None,
        }
    }

    #[test]
    fn every_entry_is_served_and_listed() {
        let mut paths = HashSet::new();
        for entry in ENTRIES {
            assert!(paths.insert(entry.path()), "{entry:?} twice");
            let given = status(&treated(entry.example()));
            assert!(!matches!(given, Some(400 | 404)), "{entry:?}");
            assert!(list().contains(entry.path()), "{entry:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_would_be_right() {
        for (target, expected) in [
            ("/", 200),
            ("/nothing", 404),
            ("/okay", 404),
            ("/status/", 400),
            ("/status/199", 400),
            ("/status/x", 400),
            ("/slow/601", 400),
            ("/retry-after/whenever", 400),
            ("/status/599?query", 599),
        ] {
            assert_eq!(status(&treated(target)), Some(expected), "{target}");
        }
    }

    #[test]
    fn every_kind_of_retry_after_is_served_and_listed() {
        for (kind, _) in RETRY_AFTER {
            let given = status(&treated(&format!("/retry-after/{kind}")));
            assert_eq!(given, Some(429), "{kind}");
            assert!(list().contains(kind), "{kind}");
        }
    }
}
