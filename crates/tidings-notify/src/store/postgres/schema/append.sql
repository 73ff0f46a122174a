-- Appending, and making the logs that do not exist yet. A transaction that is creating logs delays only the calls that name
-- their users, however many they are.

CREATE FUNCTION tidings_notify_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

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

-- Makes logs for those of the users who have none, except where another transaction is creating the log and does not
-- end. That shows only by waiting for a moment, for one log after the other. So the time for all is limited:
-- `held` are the users whose logs others are creating, and `untried` those for whom no time was left.
CREATE FUNCTION tidings_notify_begin_free(
    b_users text[], b_epochs bigint[], b_line integer
) RETURNS TABLE (made boolean, held text[], untried text[])
LANGUAGE plpgsql SET enable_seqscan = off SET lock_timeout = '1ms' AS $$
DECLARE
    v_end timestamptz;
    v_one record;
BEGIN
    held := '{}';
    untried := '{}';
    BEGIN
        made := tidings_notify_begin(b_users, b_epochs, b_line);
        RETURN NEXT;
        RETURN;
    EXCEPTION WHEN lock_not_available THEN
        made := false;
    END;
    v_end := clock_timestamp() + interval '20 milliseconds';
    FOR v_one IN
        SELECT given.user_id, min(given.epoch) AS epoch
        FROM unnest(b_users, b_epochs) AS given (user_id, epoch)
        WHERE NOT EXISTS (
            SELECT FROM tidings_notify_log AS log WHERE log.user_id = given.user_id COLLATE "C")
        GROUP BY given.user_id ORDER BY given.user_id COLLATE "C"
    LOOP
        -- One at least is tried, so that the next call gets further.
        IF clock_timestamp() > v_end AND (made OR held <> '{}') THEN
            untried := untried || v_one.user_id;
            CONTINUE;
        END IF;
        BEGIN
            made := tidings_notify_begin(ARRAY[v_one.user_id], ARRAY[v_one.epoch], b_line) OR made;
        EXCEPTION WHEN lock_not_available THEN
            held := held || v_one.user_id;
        END;
    END LOOP;
    RETURN NEXT;
END $$;

-- Appends drafts of several calls, each call as a whole or not at all. Returns of each draft that was
-- appended its place among all, and epoch and number. A call waits for logs that others have locked or are
-- creating, or is left out if a_skip says so; then `held` and `untried` are as those of tidings_notify_begin_free, and
-- `taken` are the users whose logs others have locked.
CREATE FUNCTION tidings_notify_append_calls(
    a_calls integer[], a_users text[], a_types text[], a_payloads text[], a_stamps bigint[],
    a_keys text[], a_epochs bigint[], a_skip boolean
) RETURNS TABLE (
    places bigint[], epochs bigint[], seqs bigint[], held text[], untried text[], taken text[]
)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_line integer := tidings_notify_line();
    v_now bigint;
    v_only integer[];
    v_busy integer[];
    v_missing text[];
    v_made boolean;
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
    held := '{}';
    untried := '{}';
    taken := '{}';
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
            SELECT given.call, given.user_id FROM given
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
            (SELECT array_agg(DISTINCT busy.call) FROM busy),
            (SELECT array_agg(DISTINCT busy.user_id) FROM busy)
        INTO v_places, v_epochs, v_logs, v_seqs, v_keyed, v_busy, v_missing
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
        EXIT WHEN v_busy IS NULL OR v_only IS NOT NULL;
        SELECT begun.made, begun.held, begun.untried INTO v_made, held, untried
        FROM tidings_notify_begin_free(a_users, a_epochs, v_line) AS begun;
        EXIT WHEN NOT v_made;
        v_only := v_busy;
    END LOOP;
    IF v_missing IS NOT NULL THEN
        taken := ARRAY(SELECT missing.user_id FROM unnest(v_missing) AS missing (user_id)
            WHERE missing.user_id <> ALL (held) AND missing.user_id <> ALL (untried));
    END IF;
    RETURN NEXT;
END $$;
