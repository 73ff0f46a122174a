-- Appending and trimming. A transaction that changes a stream or its messages has locked its row. The row itself
-- is not written: a row that every publish updates has as many versions as there were publishes
-- while an old snapshot is held, and each look at it goes through all of them.

-- Finds or creates a stream, and locks it.
CREATE FUNCTION tidings_stream_lock(p_stream text) RETURNS tidings_stream LANGUAGE plpgsql AS $$
DECLARE
    v_stream tidings_stream;
BEGIN
    LOOP
        SELECT * INTO v_stream FROM tidings_stream WHERE name = p_stream FOR NO KEY UPDATE;
        IF FOUND THEN
            RETURN v_stream;
        END IF;
        INSERT INTO tidings_stream (name) VALUES (p_stream) ON CONFLICT (name) DO NOTHING;
    END LOOP;
END $$;

-- The number of the newest message of a stream, and the bytes up to it.
CREATE FUNCTION tidings_stream_head(
    p_stream_id bigint, p_tail bigint, OUT number bigint, OUT bytes bigint
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT m.number, m.bytes INTO number, bytes FROM tidings_stream_message m
        WHERE m.stream_id = p_stream_id AND m.number >= p_tail
        ORDER BY m.number DESC LIMIT 1;
    IF NOT FOUND THEN
        number := p_tail - 1;
        bytes := 0;
    END IF;
END $$;

-- The number of the oldest message that a group has yet to handle; NULL without groups. The group that
-- brings dead letters back keeps none.
CREATE FUNCTION tidings_stream_first_needed(p_stream_id bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT min(least(newest.hi + 1, retry.number, open.number))
    FROM tidings_stream_group g
    CROSS JOIN LATERAL (
        SELECT hi, first_open FROM tidings_stream_lease WHERE group_id = g.group_id
        ORDER BY hi DESC LIMIT 1) newest
    LEFT JOIN LATERAL tidings_stream_floor(g.group_id) floor ON true
    LEFT JOIN LATERAL (
        SELECT number FROM tidings_stream_retry
        WHERE group_id = g.group_id AND number >= floor.lowest
        ORDER BY number LIMIT 1) retry ON true
    LEFT JOIN LATERAL (
        SELECT lo + position(B'0' IN settled) - 1 AS number FROM tidings_stream_lease
        WHERE group_id = g.group_id AND hi >= newest.first_open AND coalesce(deadline, 0) > 0
        ORDER BY hi LIMIT 1) open ON true
    WHERE g.stream_id = p_stream_id AND g.name <> 'tidings.redrive');
END $$;

-- Counts what the groups of a locked stream lose when it is trimmed: what they have not claimed, and
-- what waits for another attempt. What a consumer has is counted if it comes again. A group that is
-- busy counts its losses with its next claim.
CREATE FUNCTION tidings_stream_lose(p_stream_id bigint, p_tail bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_group_id bigint;
    v_newest tidings_stream_lease;
    v_lost bigint;
    v_keys bytea[];
BEGIN
    FOR v_group_id IN
        SELECT group_id FROM tidings_stream_group WHERE stream_id = p_stream_id
        ORDER BY group_id FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        WITH gone AS (
            DELETE FROM tidings_stream_retry
            WHERE group_id = v_group_id AND number < p_tail AND claim IS NULL RETURNING ordering_key)
        SELECT count(*), array_agg(DISTINCT ordering_key) INTO v_lost, v_keys FROM gone;
        PERFORM tidings_stream_free_keys(v_group_id, v_keys, tidings_stream_now());
        SELECT * INTO v_newest FROM tidings_stream_lease
            WHERE group_id = v_group_id ORDER BY hi DESC LIMIT 1;
        IF v_newest.hi < p_tail - 1 THEN
            v_lost := v_lost + p_tail - 1 - v_newest.hi;
            INSERT INTO tidings_stream_lease VALUES (
                v_group_id, p_tail - 1, p_tail, 0, '', tidings_stream_now(), NULL, '',
                v_newest.next_deadline, v_newest.first_open);
            DELETE FROM tidings_stream_lease
                WHERE group_id = v_group_id AND hi = v_newest.hi AND deadline IS NULL;
        END IF;
        IF v_lost > 0 THEN
            UPDATE tidings_stream_group SET lost_to_trim = lost_to_trim + v_lost
                WHERE group_id = v_group_id;
        END IF;
    END LOOP;
END $$;

-- The end of those messages of a range that are removed at once: of all after the first one up to 64 MiB.
CREATE FUNCTION tidings_stream_end_of_chunk(p_stream_id bigint, p_lo bigint, p_end bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_bytes bigint;
BEGIN
    SELECT bytes INTO v_bytes FROM tidings_stream_message
        WHERE stream_id = p_stream_id AND number >= p_lo AND number < p_end ORDER BY number LIMIT 1;
    RETURN coalesce((SELECT number FROM tidings_stream_message
        WHERE stream_id = p_stream_id AND number >= p_lo AND number < p_end
            AND bytes - v_bytes > 64 << 20
        ORDER BY number LIMIT 1), p_end);
END $$;

-- Removes messages that a locked stream does not keep, up to p_chunk, and returns how many, and whether there may
-- be more. Unless it is to be exact, it waits until there are some: each time it writes the row of the stream.
CREATE FUNCTION tidings_stream_trim_locked(
    p_stream tidings_stream, p_head bigint, p_chunk bigint, p_exact boolean,
    OUT removed bigint, OUT has_more boolean
) LANGUAGE plpgsql AS $$
DECLARE
    v_end bigint := least(p_stream.tail + p_chunk, p_head + 1);
    v_keep bigint := p_stream.tail;
    v_full bigint;
    v_young bigint;
    v_oldest bigint;
    v_time bigint;
    v_late bigint := 0;
    v_slack bigint := 0;
BEGIN
    removed := 0;
    has_more := false;
    IF p_stream.max_len IS NOT NULL THEN
        v_keep := greatest(v_keep, p_head - p_stream.max_len + 1);
        IF NOT p_exact THEN
            v_slack := least(1000, p_stream.max_len / 100);
        END IF;
    END IF;
    IF p_stream.max_age IS NOT NULL THEN
        v_oldest := tidings_stream_now() - p_stream.max_age;
        IF NOT p_exact THEN
            v_late := least(p_stream.max_age / 100, 60000);
        END IF;
        SELECT created_at INTO v_time FROM tidings_stream_message
            WHERE stream_id = p_stream.stream_id AND number >= p_stream.tail AND number < v_end
            ORDER BY number LIMIT 1;
        IF v_time > v_oldest - v_late THEN
            v_oldest := NULL;
        END IF;
    END IF;
    IF v_oldest IS NULL AND v_keep - p_stream.tail <= v_slack THEN
        RETURN;
    END IF;
    IF NOT p_stream.trim_pending THEN
        v_end := least(v_end, tidings_stream_first_needed(p_stream.stream_id));
        IF v_end <= p_stream.tail THEN
            RETURN;
        END IF;
    END IF;
    IF v_oldest IS NOT NULL THEN
        SELECT number INTO v_young FROM tidings_stream_message
            WHERE stream_id = p_stream.stream_id AND number >= p_stream.tail AND number < v_end
                AND created_at > v_oldest
            ORDER BY number LIMIT 1;
        v_keep := greatest(v_keep, coalesce(v_young, v_end));
    END IF;
    v_keep := least(v_keep, v_end);
    IF v_keep <= p_stream.tail THEN
        RETURN;
    END IF;
    v_full := v_keep;
    v_keep := tidings_stream_end_of_chunk(p_stream.stream_id, p_stream.tail, v_keep);
    DELETE FROM tidings_stream_message
        WHERE stream_id = p_stream.stream_id AND number >= p_stream.tail AND number < v_keep;
    UPDATE tidings_stream SET tail = v_keep WHERE stream_id = p_stream.stream_id;
    IF p_stream.trim_pending OR EXISTS (SELECT 1 FROM tidings_stream_group
        WHERE stream_id = p_stream.stream_id AND name = 'tidings.redrive')
    THEN
        PERFORM tidings_stream_lose(p_stream.stream_id, v_keep);
    END IF;
    removed := v_keep - p_stream.tail;
    has_more := removed >= p_chunk OR v_keep < v_full;
END $$;

-- Writes messages behind the newest one of a locked stream. p_ends has the bytes of the messages up
-- to each. Returns the number of the first and of the newest; and the place and the number of each message
-- that repeats an earlier one. What is returned under the lock of the stream is to fit into the buffers of a
-- connection: if more than 500 are repeats, they are NULL, and have to be asked for.
CREATE FUNCTION tidings_stream_write(
    p_stream tidings_stream, p_payloads bytea[], p_headers bytea[], p_ends bigint[],
    p_keys text[], p_windows bigint[], OUT first bigint, OUT head bigint, OUT repeats bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_bytes bigint;
    v_now bigint := tidings_stream_now();
    v_number bigint;
    v_repeats integer := 0;
    v_numbers bigint[];
    v_kept boolean[];
BEGIN
    SELECT h.number, h.bytes INTO head, v_bytes
        FROM tidings_stream_head(p_stream.stream_id, p_stream.tail) h;
    first := head + 1;
    repeats := '{}';
    IF p_keys IS NULL THEN
        IF cardinality(p_payloads) = 1 THEN
            INSERT INTO tidings_stream_message VALUES (
                p_stream.stream_id, first, v_now, v_bytes + p_ends[1], p_headers[1], p_payloads[1]);
        ELSE
            INSERT INTO tidings_stream_message
                SELECT p_stream.stream_id, first - 1 + u.n, v_now, v_bytes + u.bytes, u.headers, u.payload
                FROM unnest(p_payloads, p_headers, p_ends) WITH ORDINALITY
                    AS u (payload, headers, bytes, n);
        END IF;
        head := head + cardinality(p_payloads);
        RETURN;
    END IF;
    FOR i IN 1 .. cardinality(p_payloads) LOOP
        v_number := NULL;
        IF p_keys[i] IS NOT NULL THEN
            SELECT number INTO v_number FROM tidings_stream_publish_key
                WHERE stream_id = p_stream.stream_id AND key = p_keys[i] AND expires > v_now;
            IF NOT FOUND THEN
                INSERT INTO tidings_stream_publish_key AS k
                    VALUES (p_stream.stream_id, p_keys[i], head + 1, v_now + p_windows[i])
                    ON CONFLICT (stream_id, key)
                        DO UPDATE SET number = excluded.number, expires = excluded.expires;
            END IF;
        END IF;
        v_kept[i] := v_number IS NULL;
        IF v_kept[i] THEN
            head := head + 1;
            v_number := head;
        ELSE
            v_repeats := v_repeats + 1;
            repeats := CASE WHEN v_repeats <= 500 THEN repeats || ARRAY[i, v_number] END;
        END IF;
        v_numbers[i] := v_number;
    END LOOP;
    INSERT INTO tidings_stream_message
        SELECT p_stream.stream_id, u.number, v_now, v_bytes + u.bytes, u.headers, u.payload
        FROM unnest(p_payloads, p_headers, p_ends, v_numbers, v_kept)
            AS u (payload, headers, bytes, number, kept)
        WHERE u.kept;
END $$;

-- The numbers of the messages that were published first under some keys; NULL for those that are forgotten,
-- and for keys that are NULL.
CREATE FUNCTION tidings_stream_known(p_stream text, p_keys text[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream_id bigint;
BEGIN
    SELECT stream_id INTO v_stream_id FROM tidings_stream WHERE name = p_stream;
    RETURN (
        SELECT array_agg((SELECT k.number FROM tidings_stream_publish_key k
            WHERE k.stream_id = v_stream_id AND k.key = asked.key) ORDER BY place)
        FROM unnest(p_keys) WITH ORDINALITY AS asked (key, place));
END $$;

-- Stores the retention of a locked stream.
CREATE FUNCTION tidings_stream_keep(
    p_stream tidings_stream, p_max_len bigint, p_max_age bigint, p_trim_pending boolean
) RETURNS tidings_stream LANGUAGE plpgsql AS $$
BEGIN
    IF p_stream.max_len IS DISTINCT FROM p_max_len OR p_stream.max_age IS DISTINCT FROM p_max_age
        OR p_stream.trim_pending <> p_trim_pending
    THEN
        UPDATE tidings_stream
            SET max_len = p_max_len, max_age = p_max_age, trim_pending = p_trim_pending
            WHERE stream_id = p_stream.stream_id;
        p_stream.max_len := p_max_len;
        p_stream.max_age := p_max_age;
        p_stream.trim_pending := p_trim_pending;
    END IF;
    RETURN p_stream;
END $$;

-- Appends messages, stores the retention unless p_trim_pending is NULL, and trims to what is stored.
CREATE FUNCTION tidings_stream_append(
    p_stream text, p_max_len bigint, p_max_age bigint, p_trim_pending boolean,
    p_payloads bytea[], p_headers bytea[], p_ends bigint[], p_keys text[], p_windows bigint[],
    OUT first bigint, OUT head bigint, OUT repeats bigint[]
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream tidings_stream;
BEGIN
    PERFORM tidings_stream_begin(true);
    v_stream := tidings_stream_lock(p_stream);
    IF p_trim_pending IS NOT NULL THEN
        v_stream := tidings_stream_keep(v_stream, p_max_len, p_max_age, p_trim_pending);
    END IF;
    SELECT w.first, w.head, w.repeats INTO first, head, repeats
        FROM tidings_stream_write(v_stream, p_payloads, p_headers, p_ends, p_keys, p_windows) w;
    IF v_stream.max_len IS NOT NULL OR v_stream.max_age IS NOT NULL THEN
        PERFORM tidings_stream_trim_locked(v_stream, head, 1000, false);
    END IF;
END $$;

-- Stores the retention of a stream, and trims to it.
CREATE FUNCTION tidings_stream_set_retention(
    p_stream text, p_max_len bigint, p_max_age bigint, p_trim_pending boolean
) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream tidings_stream;
BEGIN
    PERFORM tidings_stream_begin(true);
    v_stream := tidings_stream_keep(
        tidings_stream_lock(p_stream), p_max_len, p_max_age, p_trim_pending);
    PERFORM tidings_stream_trim_locked(
        v_stream, (tidings_stream_head(v_stream.stream_id, v_stream.tail)).number, 1000, true);
END $$;

-- The same for a stream that is not locked, exactly.
CREATE FUNCTION tidings_stream_trim(
    p_stream_id bigint, p_chunk bigint, OUT removed bigint, OUT has_more boolean
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream tidings_stream;
BEGIN
    PERFORM tidings_stream_begin(false);
    SELECT * INTO v_stream FROM tidings_stream WHERE stream_id = p_stream_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        removed := 0;
        has_more := false;
        RETURN;
    END IF;
    SELECT t.removed, t.has_more INTO removed, has_more FROM tidings_stream_trim_locked(
        v_stream, (tidings_stream_head(v_stream.stream_id, v_stream.tail)).number, p_chunk, true) t;
END $$;

-- The bytes of a message, as they are counted.
CREATE FUNCTION tidings_stream_size(p_headers bytea, p_payload bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT (octet_length(p_payload) + coalesce(octet_length(p_headers), 0))::bigint
$$;

-- Removes up to p_max publish keys whose windows have ended, and returns how many. Several may do it at
-- a time, and share the work.
CREATE FUNCTION tidings_stream_forget_keys(p_max bigint) RETURNS bigint LANGUAGE sql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH expired AS MATERIALIZED (
        SELECT stream_id, key FROM tidings_stream_publish_key
        WHERE expires <= tidings_stream_now() ORDER BY expires LIMIT p_max FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM tidings_stream_publish_key k USING expired e
        WHERE k.stream_id = e.stream_id AND k.key = e.key RETURNING 1)
    SELECT count(*) FROM gone
$$;

-- Those of the claimed messages of a group that are kept: some that come again, in this order, with what their
-- last attempt said, and new ones from one number to another.
CREATE FUNCTION tidings_stream_claimed(
    p_stream text, p_group text, p_stream_id bigint, p_again bigint[], p_lo bigint, p_hi bigint,
    OUT number bigint, OUT created_at bigint, OUT headers bytea, OUT payload bytea,
    OUT last_error bytea
) RETURNS SETOF record LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    IF cardinality(p_again) > 0 THEN
        RETURN QUERY SELECT m.number, m.created_at, m.headers, m.payload, r.last_error
            FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
            CROSS JOIN unnest(p_again) WITH ORDINALITY AS again (number, place)
            JOIN tidings_stream_message m ON m.stream_id = p_stream_id AND m.number = again.number
            LEFT JOIN tidings_stream_retry r ON r.group_id = g.group_id AND r.number = m.number
            WHERE m.headers IS DISTINCT FROM '' AND s.name = p_stream AND g.name = p_group
            ORDER BY again.place;
    END IF;
    RETURN QUERY SELECT m.number, m.created_at, m.headers, m.payload, NULL::bytea
        FROM tidings_stream_message m
        WHERE m.stream_id = p_stream_id AND m.number BETWEEN p_lo AND p_hi AND m.headers IS DISTINCT FROM ''
        ORDER BY m.number;
END $$;

-- The headers of those of some messages that are kept.
CREATE FUNCTION tidings_stream_headers(
    p_stream text, p_numbers bigint[], OUT number bigint, OUT headers bytea
) RETURNS SETOF record LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    RETURN QUERY SELECT m.number, m.headers
        FROM tidings_stream s JOIN tidings_stream_message m USING (stream_id)
        WHERE s.name = p_stream AND m.number = ANY (p_numbers);
END $$;
