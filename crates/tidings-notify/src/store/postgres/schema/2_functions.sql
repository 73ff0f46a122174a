-- Every change is one call of a function. The rows of logs are locked first, in the order of their
-- users, and everything else that belongs to a log is written under its lock. Nothing notifies:
-- commits that do are made one after the other by the server.

CREATE FUNCTION tidings_notify_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- The timeline that the server writes. Services that forbid both ways to ask, or have no such thing, do not
-- hand over to a copy that lacks something: there it is always 0.
CREATE FUNCTION tidings_notify_line() RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
EXCEPTION WHEN OTHERS THEN
    BEGIN
        -- As of the last checkpoint, which a server that was promoted begins at once.
        RETURN (SELECT timeline_id FROM pg_control_checkpoint());
    EXCEPTION WHEN OTHERS THEN
        RETURN 0;
    END;
END $$;

-- The channel of the wake-ups of these tables, whatever else is in the database.
CREATE FUNCTION tidings_notify_channel() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'tidings_notify_' || 'tidings_notify_log'::regclass::oid
$$;

-- What is not lost without harm waits for the disk, even where commits usually do not.
CREATE FUNCTION tidings_notify_durable() RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT set_config('synchronous_commit', 'local', true)
    WHERE current_setting('synchronous_commit') = 'off'
$$;

CREATE FUNCTION tidings_notify_relaxed() RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT set_config('synchronous_commit', 'off', true)
$$;

-- Counts the unread events of the inbox with numbers above u_seq.
CREATE FUNCTION tidings_notify_unread_above(u_log tidings_notify_log, u_seq bigint)
RETURNS bigint LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    v_floor bigint := greatest(u_seq, u_log.first_seq - 1);
    v_unmarked bigint := least(greatest(v_floor, u_log.read_seq), u_log.top_seq);
BEGIN
    RETURN u_log.top_seq - v_unmarked
        - (SELECT count(*) FROM tidings_notify_state AS state
           WHERE state.log = u_log.id AND state.seq > v_unmarked AND state.seq <= u_log.top_seq
             AND (state.read_at IS NOT NULL OR state.archived_at IS NOT NULL))
        + (SELECT count(*) FROM tidings_notify_state AS state
           WHERE state.log = u_log.id AND state.seq > v_floor AND state.seq <= v_unmarked
             AND state.is_unread AND state.archived_at IS NULL);
END $$;

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
    ELSIF s_action = 'unarchive' THEN
        IF v_was_listed THEN RETURN false; END IF;
        v_state.archived_at := NULL;
        INSERT INTO tidings_notify_key (log, event_key, seq)
        SELECT s_log, event.event_key, s_seq FROM tidings_notify_event AS event
        WHERE event.log = s_log AND event.seq = s_seq AND event.event_key IS NOT NULL;
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

-- Makes logs for those of the users who have none, and returns whether it has made any.
CREATE FUNCTION tidings_notify_begin(b_users text[], b_epochs bigint[], b_line integer)
RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO tidings_notify_log (user_id, epoch, line)
    SELECT given.user_id, min(given.epoch), b_line
    FROM unnest(b_users, b_epochs) AS given (user_id, epoch)
    WHERE NOT EXISTS (
        SELECT FROM tidings_notify_log AS log WHERE log.user_id = given.user_id COLLATE "C")
    GROUP BY given.user_id ORDER BY given.user_id COLLATE "C"
    ON CONFLICT (user_id) DO NOTHING;
    RETURN FOUND;
END $$;

-- The same, without waiting for a transaction that makes one of these logs and does not end: the error
-- undoes the whole batch, and calls are tried one by one.
CREATE FUNCTION tidings_notify_begin_soon(b_users text[], b_epochs bigint[], b_line integer)
RETURNS boolean LANGUAGE sql SET lock_timeout = '20ms' AS $$
    SELECT tidings_notify_begin(b_users, b_epochs, b_line)
$$;

-- Appends drafts of several calls, each call as a whole or not at all. Returns of each draft that was
-- appended its place among all, and epoch and number. A call waits for logs that others have locked, or
-- is left out if a_skip says so.
CREATE FUNCTION tidings_notify_append(
    a_calls integer[], a_users text[], a_types text[], a_payloads text[], a_stamps bigint[],
    a_keys text[], a_epochs bigint[], a_skip boolean
) RETURNS TABLE (places bigint[], epochs bigint[], seqs bigint[])
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_line integer := tidings_notify_line();
    v_now bigint;
    v_only integer[];
    v_busy integer[];
    v_keyed bigint;
    v_one record;
    v_places bigint[];
    v_epochs bigint[];
    v_logs bigint[];
    v_seqs bigint[];
BEGIN
    places := '{}';
    epochs := '{}';
    seqs := '{}';
    IF a_skip THEN
        PERFORM tidings_notify_durable();
    ELSE
        PERFORM tidings_notify_begin(a_users, a_epochs, v_line);
        PERFORM FROM tidings_notify_log AS log WHERE log.user_id = ANY (a_users)
        ORDER BY log.user_id FOR NO KEY UPDATE;
    END IF;
    LOOP
        v_now := tidings_notify_now();
        WITH given AS MATERIALIZED (
            SELECT one.call, one.user_id COLLATE "C" AS user_id, one.type, one.payload, one.stamp,
                one.event_key, one.epoch, one.n
            FROM unnest(a_calls, a_users, a_types, a_payloads, a_stamps, a_keys, a_epochs)
                WITH ORDINALITY AS one (call, user_id, type, payload, stamp, event_key, epoch, n)
            WHERE v_only IS NULL OR one.call = ANY (v_only)
        ), locked AS MATERIALIZED (
            SELECT log.id, log.user_id, log.epoch, log.line, log.top_seq, log.latest_at,
                log.stored_at
            FROM tidings_notify_log AS log WHERE log.user_id = ANY (a_users)
            ORDER BY log.user_id FOR NO KEY UPDATE SKIP LOCKED
        ), busy AS MATERIALIZED (
            SELECT DISTINCT given.call FROM given
            WHERE given.user_id NOT IN (SELECT locked.user_id FROM locked)
        ), placed AS MATERIALIZED (
            SELECT given.n, given.type, given.payload, given.stamp, given.event_key,
                locked.id, locked.top_seq, greatest(locked.stored_at, v_now) AS stored_at,
                -- Readers must notice that the end of the log may be another one now.
                CASE WHEN locked.line = v_line THEN locked.epoch
                    ELSE first_value(given.epoch) OVER so_far END AS epoch,
                locked.top_seq + row_number() OVER so_far AS seq,
                greatest(locked.latest_at, max(given.stamp) OVER so_far) AS latest_at
            FROM given JOIN locked ON locked.user_id = given.user_id
            WHERE given.call NOT IN (SELECT busy.call FROM busy)
            WINDOW so_far AS (PARTITION BY locked.id ORDER BY given.n)
        ), changed AS (
            UPDATE tidings_notify_log AS log SET
                epoch = total.epoch, line = v_line, top_seq = total.top_seq,
                unread = log.unread + total.events, unseen = log.unseen + total.events,
                revision = log.revision + total.keyed,
                latest_at = total.latest_at, stored_at = total.stored_at,
                changed = pg_current_xact_id()
            FROM (
                SELECT placed.id, min(placed.epoch) AS epoch, max(placed.seq) AS top_seq,
                    max(placed.latest_at) AS latest_at, max(placed.stored_at) AS stored_at,
                    count(*) AS events, count(placed.event_key) AS keyed
                FROM placed GROUP BY placed.id
            ) AS total
            WHERE log.id = total.id
        ), added AS (
            INSERT INTO tidings_notify_event
                (log, seq, timestamp, latest_at, stored_at, type, event_key, payload)
            SELECT placed.id, placed.seq, placed.stamp, placed.latest_at, placed.stored_at,
                placed.type, placed.event_key, placed.payload
            FROM placed
        )
        SELECT array_agg(placed.n), array_agg(placed.epoch), array_agg(placed.id),
            array_agg(placed.seq), count(placed.event_key),
            (SELECT array_agg(busy.call) FROM busy)
        INTO v_places, v_epochs, v_logs, v_seqs, v_keyed, v_busy
        FROM placed;

        IF v_keyed > 0 THEN
            FOR v_one IN
                SELECT one.log, one.seq, a_keys[one.place] AS event_key
                FROM unnest(v_places, v_logs, v_seqs) AS one (place, log, seq)
                WHERE a_keys[one.place] IS NOT NULL ORDER BY one.place
            LOOP
                PERFORM tidings_notify_set(live.log, live.seq, 'archive', v_now)
                FROM tidings_notify_key AS live
                WHERE live.log = v_one.log AND live.event_key = v_one.event_key COLLATE "C";
                INSERT INTO tidings_notify_key (log, event_key, seq)
                VALUES (v_one.log, v_one.event_key, v_one.seq);
            END LOOP;
        END IF;
        places := places || v_places;
        epochs := epochs || v_epochs;
        seqs := seqs || v_seqs;
        -- Those that are left are locked by others, or are to be made.
        EXIT WHEN v_busy IS NULL OR v_only IS NOT NULL
            OR NOT tidings_notify_begin_soon(a_users, a_epochs, v_line);
        v_only := v_busy;
    END LOOP;
    RETURN NEXT;
END $$;

-- Changes the inbox of a user. c_ids are the numbers of events of the epochs beside them; the actions
-- on all of them take the last one, or everything without one.
CREATE FUNCTION tidings_notify_change(
    c_user text, c_action text, c_epochs bigint[], c_seqs bigint[], c_at bigint
) RETURNS TABLE (
    changed bigint, seqs bigint[], revision bigint, unread bigint, unseen bigint, epoch bigint,
    top_seq bigint
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_log tidings_notify_log;
    v_last bigint;
    v_above bigint;
    v_changed bigint := 0;
    v_seqs bigint[] := '{}';
BEGIN
    PERFORM tidings_notify_durable();
    SELECT * INTO v_log FROM tidings_notify_log AS log WHERE log.user_id = c_user
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF c_action NOT IN ('read_up_to', 'see_up_to') THEN
        FOR v_index IN 1 .. coalesce(cardinality(c_seqs), 0) LOOP
            IF c_epochs[v_index] = v_log.epoch
                AND c_seqs[v_index] BETWEEN v_log.first_seq AND v_log.top_seq
                AND tidings_notify_set(v_log.id, c_seqs[v_index], c_action, c_at)
            THEN
                v_seqs := v_seqs || c_seqs[v_index];
                v_changed := v_changed + 1;
            END IF;
        END LOOP;
    ELSIF c_seqs = '{}' OR c_epochs[1] = v_log.epoch THEN
        v_last := least(coalesce(c_seqs[1], v_log.top_seq), v_log.top_seq);
        v_seqs := ARRAY[v_last];
        v_above := tidings_notify_unread_above(v_log, v_last);
        IF c_action = 'read_up_to' AND v_log.unread > v_above THEN
            v_changed := v_log.unread - v_above;
            -- Those that were put back to unread have been changed one by one before.
            UPDATE tidings_notify_state AS state SET read_at = c_at, is_unread = false
            WHERE state.log = v_log.id AND state.seq BETWEEN v_log.first_seq AND v_last
                AND state.is_unread AND state.archived_at IS NULL;
            IF v_last > v_log.read_seq THEN
                INSERT INTO tidings_notify_read_mark (log, up_to, at)
                VALUES (v_log.id, v_last, c_at);
            END IF;
            UPDATE tidings_notify_log AS log SET
                unread = v_above, read_seq = greatest(log.read_seq, v_last),
                unseen = CASE WHEN v_last >= log.seen_seq THEN v_above ELSE log.unseen END
            WHERE log.id = v_log.id;
        ELSIF c_action = 'see_up_to' AND v_last > v_log.seen_seq THEN
            v_changed := v_log.unseen - v_above;
            UPDATE tidings_notify_log AS log SET seen_seq = v_last, unseen = v_above
            WHERE log.id = v_log.id;
        END IF;
    END IF;
    IF v_changed > 0 THEN
        UPDATE tidings_notify_log AS log
        SET revision = log.revision + 1, changed = pg_current_xact_id()
        WHERE log.id = v_log.id;
    END IF;
    RETURN QUERY SELECT v_changed, v_seqs, log.revision, log.unread, log.unseen, log.epoch, log.top_seq
    FROM tidings_notify_log AS log WHERE log.id = v_log.id;
END $$;

CREATE FUNCTION tidings_notify_deliver(d_users text[], d_epochs bigint[], d_seqs bigint[])
RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM tidings_notify_relaxed();
    INSERT INTO tidings_notify_delivered AS delivered (log, epoch, seq)
    SELECT log.id, log.epoch, max(given.seq)
    FROM unnest(d_users, d_epochs, d_seqs) AS given (user_id, epoch, seq)
    JOIN tidings_notify_log AS log ON log.user_id = given.user_id COLLATE "C"
        AND log.epoch = given.epoch AND log.top_seq >= given.seq
    GROUP BY log.id, log.epoch ORDER BY log.id
    ON CONFLICT (log) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq
    WHERE delivered.epoch <> excluded.epoch OR delivered.seq < excluded.seq;
END $$;

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
    v_unread := tidings_notify_unread_above(v_log, v_last);
    v_unseen := CASE WHEN v_last >= v_log.seen_seq THEN v_unread ELSE v_log.unseen END;
    DELETE FROM tidings_notify_key AS live USING tidings_notify_event AS event
    WHERE event.log = t_log AND event.seq BETWEEN v_log.first_seq AND v_last
        AND event.event_key IS NOT NULL AND live.log = t_log AND live.seq = event.seq
        AND live.event_key = event.event_key COLLATE "C";
    DELETE FROM tidings_notify_event AS event
    WHERE event.log = t_log AND event.seq BETWEEN v_log.first_seq AND v_last;
    DELETE FROM tidings_notify_state AS state
    WHERE state.log = t_log AND state.seq BETWEEN v_log.first_seq AND v_last;
    DELETE FROM tidings_notify_read_mark AS mark WHERE mark.log = t_log AND mark.up_to <= v_last;
    UPDATE tidings_notify_log AS log SET first_seq = v_last + 1,
        unread = v_unread, unseen = v_unseen,
        revision = log.revision + (v_unread <> log.unread OR v_unseen <> log.unseen)::integer,
        changed = CASE WHEN v_unread <> log.unread OR v_unseen <> log.unseen
            THEN pg_current_xact_id() ELSE log.changed END
    WHERE log.id = t_log;
    RETURN v_last - v_log.first_seq + 1;
END $$;
