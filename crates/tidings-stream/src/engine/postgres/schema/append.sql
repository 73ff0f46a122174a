-- Appending and trimming. Whoever changes a stream or its messages has locked its row. The row itself
-- is not written: a row that every publish updates has as many versions as there were publishes
-- while somebody holds an old snapshot, and each look at it goes through all of them.

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

-- The number of the oldest message that some group has yet to handle; NULL without groups.
CREATE FUNCTION tidings_stream_first_needed(p_stream_id bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT min(least(newest.hi + 1, retry.number, open.number))
    FROM tidings_stream_group g
    CROSS JOIN LATERAL (
        SELECT hi, first_open FROM tidings_stream_lease WHERE group_id = g.group_id
        ORDER BY hi DESC LIMIT 1) newest
    LEFT JOIN LATERAL (
        SELECT number FROM tidings_stream_retry WHERE group_id = g.group_id
        ORDER BY number LIMIT 1) retry ON true
    LEFT JOIN LATERAL (
        SELECT lo + position(B'0' IN settled) - 1 AS number FROM tidings_stream_lease
        WHERE group_id = g.group_id AND hi >= newest.first_open AND deadline IS NOT NULL
        ORDER BY hi LIMIT 1) open ON true
    WHERE g.stream_id = p_stream_id
$$;

-- Removes up to p_chunk of the messages that a locked stream does not keep, and answers how many.
CREATE FUNCTION tidings_stream_trim_locked(p_stream tidings_stream, p_head bigint, p_chunk bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_end bigint := least(p_stream.tail + p_chunk, p_head + 1);
    v_keep bigint := p_stream.tail;
    v_young bigint;
BEGIN
    IF p_stream.max_len IS NOT NULL THEN
        v_keep := greatest(v_keep, p_head - p_stream.max_len + 1);
    END IF;
    IF p_stream.max_age IS NOT NULL THEN
        SELECT number INTO v_young FROM tidings_stream_message
            WHERE stream_id = p_stream.stream_id AND number >= p_stream.tail AND number < v_end
                AND created_at > tidings_stream_now() - p_stream.max_age
            ORDER BY number LIMIT 1;
        v_keep := greatest(v_keep, coalesce(v_young, v_end));
    END IF;
    v_keep := least(v_keep, v_end);
    IF v_keep > p_stream.tail AND NOT p_stream.trim_pending THEN
        v_keep := least(v_keep, tidings_stream_first_needed(p_stream.stream_id));
    END IF;
    IF v_keep <= p_stream.tail THEN
        RETURN 0;
    END IF;
    DELETE FROM tidings_stream_message
        WHERE stream_id = p_stream.stream_id AND number >= p_stream.tail AND number < v_keep;
    UPDATE tidings_stream SET tail = v_keep WHERE stream_id = p_stream.stream_id;
    RETURN v_keep - p_stream.tail;
END $$;

-- Writes messages behind the newest one of a locked stream. p_ends has the bytes of the messages up
-- to each. Answers the number of the first; of each, when there are publish keys.
CREATE FUNCTION tidings_stream_write(
    p_stream tidings_stream, p_payloads bytea[], p_headers bytea[], p_ends bigint[],
    p_keys text[], p_windows bigint[],
    OUT first bigint, OUT numbers bigint[], OUT head bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_bytes bigint;
    v_now bigint := tidings_stream_now();
    v_known bigint;
    v_kept boolean[];
BEGIN
    SELECT h.number, h.bytes INTO head, v_bytes
        FROM tidings_stream_head(p_stream.stream_id, p_stream.tail) h;
    first := head + 1;
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
        v_kept[i] := true;
        IF p_keys[i] IS NOT NULL THEN
            SELECT number INTO v_known FROM tidings_stream_publish_key
                WHERE stream_id = p_stream.stream_id AND key = p_keys[i] AND expires > v_now;
            IF FOUND THEN
                v_kept[i] := false;
                numbers[i] := v_known;
                CONTINUE;
            END IF;
            INSERT INTO tidings_stream_publish_key AS k
                VALUES (p_stream.stream_id, p_keys[i], head + 1, v_now + p_windows[i])
                ON CONFLICT (stream_id, key)
                    DO UPDATE SET number = excluded.number, expires = excluded.expires;
        END IF;
        head := head + 1;
        numbers[i] := head;
    END LOOP;
    INSERT INTO tidings_stream_message
        SELECT p_stream.stream_id, u.number, v_now, v_bytes + u.bytes, u.headers, u.payload
        FROM unnest(p_payloads, p_headers, p_ends, numbers, v_kept)
            AS u (payload, headers, bytes, number, kept)
        WHERE u.kept;
END $$;

-- Appends messages, stores the retention and trims to it.
CREATE FUNCTION tidings_stream_append(
    p_stream text, p_max_len bigint, p_max_age bigint, p_trim_pending boolean,
    p_payloads bytea[], p_headers bytea[], p_ends bigint[], p_keys text[], p_windows bigint[],
    OUT first bigint, OUT numbers bigint[]
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_stream tidings_stream;
    v_head bigint;
BEGIN
    PERFORM tidings_stream_begin(true);
    v_stream := tidings_stream_lock(p_stream);
    IF v_stream.max_len IS DISTINCT FROM p_max_len OR v_stream.max_age IS DISTINCT FROM p_max_age
        OR v_stream.trim_pending <> p_trim_pending
    THEN
        UPDATE tidings_stream
            SET max_len = p_max_len, max_age = p_max_age, trim_pending = p_trim_pending
            WHERE stream_id = v_stream.stream_id;
        v_stream.max_len := p_max_len;
        v_stream.max_age := p_max_age;
        v_stream.trim_pending := p_trim_pending;
    END IF;
    SELECT w.first, w.numbers, w.head INTO first, numbers, v_head
        FROM tidings_stream_write(v_stream, p_payloads, p_headers, p_ends, p_keys, p_windows) w;
    IF p_max_len IS NOT NULL OR p_max_age IS NOT NULL THEN
        PERFORM tidings_stream_trim_locked(v_stream, v_head, 1000);
    END IF;
END $$;

-- Removes up to p_chunk messages of a stream that it does not keep, and answers how many.
CREATE FUNCTION tidings_stream_trim(p_stream_id bigint, p_chunk bigint) RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_stream tidings_stream;
BEGIN
    PERFORM tidings_stream_begin(false);
    SELECT * INTO v_stream FROM tidings_stream WHERE stream_id = p_stream_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    RETURN tidings_stream_trim_locked(
        v_stream, (tidings_stream_head(v_stream.stream_id, v_stream.tail)).number, p_chunk);
END $$;

-- The bytes of a message, as they are counted.
CREATE FUNCTION tidings_stream_size(p_headers bytea, p_payload bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT (octet_length(p_payload) + coalesce(octet_length(p_headers), 0))::bigint
$$;
