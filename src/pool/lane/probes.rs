use super::queue::Source;

/// Which messages probe an endpoint whose circuit is not closed.
///
/// An endpoint may fail with all of one kind: with messages that it has never seen, or with those
/// that have failed before. So the first probe is of the kind that worked last, and retries and new
/// messages take turns after it: a round of which half succeeds is followed by the next one.
#[derive(Debug)]
pub(super) struct Probes {
    worked: Source,
    last: Source,
}

impl Probes {
    pub(super) fn new() -> Self {
        Self {
            // Those that have waited for longest.
            worked: Source::Retries,
            last: Source::Fresh,
        }
    }

    /// Where the next probe comes from, if something is due there.
    pub(super) fn next(&self, is_first: bool) -> Source {
        if is_first {
            self.worked
        } else {
            self.last.other()
        }
    }

    pub(super) fn sent(&mut self, source: Source) {
        self.last = source;
    }

    pub(super) fn ended(&mut self, source: Source, worked: bool) {
        self.worked = if worked { source } else { source.other() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_probe_is_of_the_kind_that_worked_and_the_others_take_turns() {
        let mut probes = Probes::new();
        assert_eq!(probes.next(true), Source::Retries);
        for (source, worked, first) in [
            (Source::Retries, false, Source::Fresh),
            (Source::Fresh, true, Source::Fresh),
            (Source::Fresh, false, Source::Retries),
            (Source::Retries, true, Source::Retries),
        ] {
            probes.sent(source);
            assert_eq!(probes.next(false), source.other());
            probes.ended(source, worked);
            assert_eq!(probes.next(true), first, "{source:?}, {worked}");
        }
    }
}
