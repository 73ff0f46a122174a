-- Lists the newest l_limit events of the inbox numbered l_first to l_last, of a type if one is given. Archived events are
-- skipped by their runs. The others are read from one run to the next, but sixteen events at least, and more where none is
-- wanted: many short runs do not cost more than the events in them.
CREATE FUNCTION tidings_notify_listed(
    l_log bigint, l_first bigint, l_last bigint, l_type text, l_unread boolean, l_limit bigint
) RETURNS TABLE (
    seq bigint, "timestamp" bigint, type text, payload text, event_key text, read_at bigint, is_unread boolean
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    v_last bigint := l_last;
    v_first bigint;
    v_left bigint := l_limit;
    v_run record;
    v_least bigint := 16;
    v_found bigint;
BEGIN
    LOOP
        SELECT run.first_seq, run.last_seq INTO v_run FROM tidings_notify_archived AS run
        WHERE run.log = l_log AND run.first_seq <= v_last ORDER BY run.first_seq DESC LIMIT 1;
        v_first := coalesce(v_run.last_seq + 1, l_first);
        IF v_run.last_seq >= v_last THEN
            v_last := v_run.first_seq - 1;
            v_first := v_last;
        END IF;
        EXIT WHEN v_last < l_first OR v_left <= 0;
        v_first := greatest(l_first, least(v_first, v_last - v_least + 1));
        RETURN QUERY
            SELECT event.seq, event.timestamp, event.type, event.payload, event.event_key,
                state.read_at, coalesce(state.is_unread, false)
            FROM tidings_notify_event AS event
            -- One by one, and never more than are asked for.
            LEFT JOIN LATERAL (
                SELECT one.read_at, one.is_unread, one.archived_at FROM tidings_notify_state AS one
                WHERE one.log = l_log AND one.seq = event.seq OFFSET 0
            ) AS state ON true
            WHERE event.log = l_log AND event.seq BETWEEN v_first AND v_last
                AND state.archived_at IS NULL AND (state.read_at IS NULL OR NOT l_unread)
                AND (l_type IS NULL OR event.type = l_type)
            ORDER BY event.seq DESC LIMIT v_left;
        GET DIAGNOSTICS v_found = ROW_COUNT;
        v_left := v_left - v_found;
        v_least := CASE v_found WHEN 0 THEN least(2 * v_least, 1024) ELSE 16 END;
        v_last := v_first - 1;
    END LOOP;
END $$;
