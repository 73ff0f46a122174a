-- The state of events in the inbox, and how unread ones are counted and found.

-- Counts the unread events of the inbox with numbers above u_above, up to u_up_to.
CREATE FUNCTION tidings_notify_unread_between(u_log tidings_notify_log, u_above bigint, u_up_to bigint)
RETURNS bigint LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    v_last bigint := least(u_up_to, u_log.top_seq);
    v_floor bigint := greatest(u_above, u_log.first_seq - 1);
    v_unmarked bigint := least(greatest(v_floor, u_log.read_seq), v_last);
BEGIN
    RETURN v_last - v_unmarked
        - (SELECT count(*) FROM tidings_notify_state AS state
           WHERE state.log = u_log.id AND state.seq > v_unmarked AND state.seq <= v_last
             AND (state.read_at IS NOT NULL OR state.archived_at IS NOT NULL))
        + (SELECT count(*) FROM tidings_notify_state AS state
           WHERE state.log = u_log.id AND state.seq > v_floor AND state.seq <= v_unmarked
             AND state.is_unread AND state.archived_at IS NULL);
END $$;

-- Counts the unread events of the inbox with numbers above u_above, up to u_up_to. Above u_above there are u_all: the
-- shorter part of the log is counted, what is passed or what stays.
CREATE FUNCTION tidings_notify_unread_passed(
    u_log tidings_notify_log, u_above bigint, u_up_to bigint, u_all bigint
) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN u_up_to - greatest(u_above, u_log.read_seq) <= u_log.top_seq - u_up_to
        THEN tidings_notify_unread_between(u_log, u_above, u_up_to)
        ELSE u_all - tidings_notify_unread_between(u_log, u_up_to, u_log.top_seq) END
$$;

-- The number of the first event from u_first to u_last that is unread in the inbox.
CREATE FUNCTION tidings_notify_first_unread(
    u_log bigint, u_read_seq bigint, u_first bigint, u_last bigint
) RETURNS bigint LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT min(event.seq) FROM tidings_notify_event AS event
    LEFT JOIN tidings_notify_state AS state ON state.log = event.log AND state.seq = event.seq
    WHERE event.log = u_log AND event.seq BETWEEN u_first AND u_last
        AND state.archived_at IS NULL AND state.read_at IS NULL
        AND (event.seq > u_read_seq OR state.is_unread)
$$;

-- Changes the state of one event, and the counts with it. Returns false if it was so before.
CREATE FUNCTION tidings_notify_set(s_log bigint, s_seq bigint, s_action text, s_at bigint)
RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_log tidings_notify_log;
    v_state tidings_notify_state;
    v_was_read boolean;
    v_is_read boolean;
    v_was_listed boolean;
    v_more integer;
    v_first bigint;
    v_last bigint;
BEGIN
    SELECT * INTO v_log FROM tidings_notify_log AS log WHERE log.id = s_log;
    SELECT * INTO v_state FROM tidings_notify_state AS state
    WHERE state.log = s_log AND state.seq = s_seq;
    v_state.is_unread := coalesce(v_state.is_unread, false);
    v_was_read := v_state.read_at IS NOT NULL
        OR (NOT v_state.is_unread AND s_seq <= v_log.read_seq);
    v_is_read := v_was_read;
    v_was_listed := v_state.archived_at IS NULL;
    IF s_action = 'read' THEN
        IF v_was_read THEN RETURN false; END IF;
        v_state.read_at := s_at;
        v_state.is_unread := false;
        v_is_read := true;
    ELSIF s_action = 'unread' THEN
        IF NOT v_was_read THEN RETURN false; END IF;
        v_state.read_at := NULL;
        v_state.is_unread := true;
        v_is_read := false;
    ELSIF s_action = 'archive' THEN
        IF NOT v_was_listed THEN RETURN false; END IF;
        v_state.archived_at := s_at;
        v_state.is_unread := NOT v_was_read;
        DELETE FROM tidings_notify_key AS live USING tidings_notify_event AS event
        WHERE event.log = s_log AND event.seq = s_seq AND live.log = s_log
            AND live.seq = s_seq AND live.event_key = event.event_key COLLATE "C";
        DELETE FROM tidings_notify_archived AS run
        WHERE run.log = s_log AND run.first_seq = s_seq + 1
        RETURNING run.last_seq INTO v_last;
        UPDATE tidings_notify_archived AS run SET last_seq = coalesce(v_last, s_seq)
        WHERE run.log = s_log AND run.last_seq = s_seq - 1 AND run.first_seq = (
            SELECT max(below.first_seq) FROM tidings_notify_archived AS below
            WHERE below.log = s_log AND below.first_seq < s_seq);
        IF NOT FOUND THEN
            INSERT INTO tidings_notify_archived (log, first_seq, last_seq)
            VALUES (s_log, s_seq, coalesce(v_last, s_seq));
        END IF;
    ELSIF s_action = 'unarchive' THEN
        IF v_was_listed THEN RETURN false; END IF;
        v_state.archived_at := NULL;
        INSERT INTO tidings_notify_key (log, event_key, seq)
        SELECT s_log, event.event_key, s_seq FROM tidings_notify_event AS event
        WHERE event.log = s_log AND event.seq = s_seq AND event.event_key IS NOT NULL;
        DELETE FROM tidings_notify_archived AS run
        WHERE run.log = s_log AND run.last_seq >= s_seq AND run.first_seq = (
            SELECT max(below.first_seq) FROM tidings_notify_archived AS below
            WHERE below.log = s_log AND below.first_seq <= s_seq)
        RETURNING run.first_seq, run.last_seq INTO v_first, v_last;
        INSERT INTO tidings_notify_archived (log, first_seq, last_seq)
        SELECT s_log, part.first_seq, part.last_seq
        FROM (VALUES (v_first, s_seq - 1), (s_seq + 1, v_last)) AS part (first_seq, last_seq)
        WHERE part.first_seq <= part.last_seq;
    ELSE
        RAISE EXCEPTION 'unknown action %', s_action;
    END IF;
    INSERT INTO tidings_notify_state AS state (log, seq, read_at, is_unread, archived_at)
    VALUES (s_log, s_seq, v_state.read_at, v_state.is_unread, v_state.archived_at)
    ON CONFLICT (log, seq) DO UPDATE SET read_at = excluded.read_at,
        is_unread = excluded.is_unread, archived_at = excluded.archived_at;
    v_more := (NOT v_is_read AND v_state.archived_at IS NULL)::integer
        - (NOT v_was_read AND v_was_listed)::integer;
    IF v_more <> 0 THEN
        UPDATE tidings_notify_log AS log SET unread = log.unread + v_more,
            unseen = log.unseen + CASE WHEN s_seq > log.seen_seq THEN v_more ELSE 0 END
        WHERE log.id = s_log;
    END IF;
    RETURN true;
END $$;
