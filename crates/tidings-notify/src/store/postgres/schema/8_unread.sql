-- An event that is replaced while it is unread says so for as long as it is kept. The index is for the few that were put
-- back to unread in the inbox, which are all that "read up to here" changes.
DROP INDEX tidings_notify_state_unread;

CREATE INDEX tidings_notify_state_unread ON tidings_notify_state (log, seq)
    WHERE is_unread AND archived_at IS NULL;
