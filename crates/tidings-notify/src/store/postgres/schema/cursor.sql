-- Bisects: `latest_at` never falls along the log, and first exceeds a time at the first event stamped so.
CREATE FUNCTION tidings_notify_cursor_before(b_user text, b_time bigint)
RETURNS TABLE (epoch bigint, seq bigint) LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_log tidings_notify_log;
    v_low bigint;
    v_high bigint;
    v_middle bigint;
BEGIN
    SELECT * INTO v_log FROM tidings_notify_log AS log WHERE log.user_id = b_user;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_low := v_log.first_seq;
    v_high := v_log.top_seq + 1;
    WHILE v_low < v_high LOOP
        v_middle := v_low + (v_high - v_low) / 2;
        IF (SELECT event.latest_at FROM tidings_notify_event AS event
            WHERE event.log = v_log.id AND event.seq = v_middle) < b_time
        THEN
            v_low := v_middle + 1;
        ELSE
            v_high := v_middle;
        END IF;
    END LOOP;
    RETURN QUERY SELECT v_log.epoch, v_low - 1;
END $$;
