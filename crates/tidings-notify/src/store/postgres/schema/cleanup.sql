-- Removing what is too old, or too much.

-- The logs above g_after whose oldest event is to go, and the last log that was looked at. g_keep keeps what
-- is unread.
CREATE FUNCTION tidings_notify_aged(g_after bigint, g_cutoff bigint, g_max bigint, g_keep boolean)
RETURNS TABLE (aged bigint[], last bigint) LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT array_agg(page.id) FILTER (
            WHERE (page.top_seq - page.first_seq >= g_max
                OR (SELECT event.stored_at FROM tidings_notify_event AS event
                    WHERE event.log = page.id AND event.seq = page.first_seq) < g_cutoff)
            AND NOT (g_keep AND tidings_notify_first_unread(
                page.id, page.read_seq, page.first_seq, page.first_seq) IS NOT NULL)),
        max(page.id)
    FROM (
        SELECT log.id, log.first_seq, log.top_seq, log.read_seq FROM tidings_notify_log AS log
        WHERE log.id > g_after ORDER BY log.id LIMIT 4096
    ) AS page
$$;

-- Removes the events among the oldest t_most of a log that were stored before t_cutoff, or that the
-- log has beyond t_max, up to the first that is unread if t_keep says so, and returns how many there were.
CREATE FUNCTION tidings_notify_trim(
    t_log bigint, t_cutoff bigint, t_max bigint, t_keep boolean, t_most bigint
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_log tidings_notify_log;
    v_last bigint;
    v_unread bigint;
    v_unseen bigint;
    v_has_changed boolean;
    v_commit text := current_setting('synchronous_commit');
BEGIN
    PERFORM tidings_notify_relaxed();
    SELECT * INTO v_log FROM tidings_notify_log AS log WHERE log.id = t_log FOR NO KEY UPDATE;
    -- `stored_at` never falls along the log, so the old events are its beginning.
    v_last := greatest(
        (SELECT max(event.seq) FROM tidings_notify_event AS event
         WHERE event.log = t_log AND event.seq >= v_log.first_seq
            AND event.seq < v_log.first_seq + t_most AND event.stored_at < t_cutoff),
        CASE WHEN t_max IS NOT NULL THEN
            least(v_log.top_seq - t_max, v_log.first_seq + t_most - 1) END);
    IF t_keep THEN
        v_last := least(v_last, tidings_notify_first_unread(
            t_log, v_log.read_seq, v_log.first_seq, v_last) - 1);
    END IF;
    IF v_last IS NULL OR v_last < v_log.first_seq THEN
        RETURN 0;
    END IF;
    -- What leaves is counted: it has a bound, and what stays has none.
    v_unread := v_log.unread - tidings_notify_unread_between(v_log, v_log.first_seq - 1, v_last);
    v_unseen := v_log.unseen - tidings_notify_unread_between(
        v_log, greatest(v_log.first_seq - 1, v_log.seen_seq), v_last);
    DELETE FROM tidings_notify_key AS live USING tidings_notify_event AS event
    WHERE event.log = t_log AND event.seq BETWEEN v_log.first_seq AND v_last
        AND event.event_key IS NOT NULL AND live.log = t_log AND live.seq = event.seq
        AND live.event_key = event.event_key COLLATE "C";
    DELETE FROM tidings_notify_event AS event
    WHERE event.log = t_log AND event.seq BETWEEN v_log.first_seq AND v_last;
    DELETE FROM tidings_notify_state AS state
    WHERE state.log = t_log AND state.seq BETWEEN v_log.first_seq AND v_last;
    DELETE FROM tidings_notify_archived AS run
    WHERE run.log = t_log AND run.first_seq <= v_last AND run.last_seq <= v_last;
    UPDATE tidings_notify_archived AS run SET first_seq = v_last + 1
    WHERE run.log = t_log AND run.first_seq <= v_last;
    DELETE FROM tidings_notify_read_mark AS mark WHERE mark.log = t_log AND mark.up_to <= v_last;
    v_has_changed := v_unread <> v_log.unread OR v_unseen <> v_log.unseen;
    -- A change of the inbox waits for the disk: after a crash of the server the number of its revision would be that of another
    -- change, which a screen that has seen the first takes for known.
    IF v_has_changed THEN
        PERFORM set_config('synchronous_commit', v_commit, true);
        PERFORM tidings_notify_durable();
    END IF;
    UPDATE tidings_notify_log AS log SET first_seq = v_last + 1,
        unread = v_unread, unseen = v_unseen,
        revision = log.revision + v_has_changed::integer,
        changed = CASE WHEN v_has_changed THEN pg_current_xact_id() ELSE log.changed END
    WHERE log.id = t_log;
    RETURN v_last - v_log.first_seq + 1;
END $$;
