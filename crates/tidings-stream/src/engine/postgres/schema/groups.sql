-- Creating, moving and deleting. Locks are taken in the order stream, group. While a stream is locked, which
-- keeps its publishers waiting, a wait for a group is short.

-- The number of the first message of a range that was appended at a time or later, found by halving;
-- the one behind the range when there is none.
CREATE FUNCTION tidings_stream_first_at(
    p_stream_id bigint, p_lo bigint, p_hi bigint, p_time bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_first bigint := p_lo;
    v_end bigint := p_hi + 1;
    v_middle bigint;
    v_next bigint;
    v_time bigint;
BEGIN
    WHILE v_first < v_end LOOP
        v_middle := v_first + (v_end - v_first) / 2;
        -- The message itself may have been removed by hand.
        SELECT number, created_at INTO v_next, v_time FROM tidings_stream_message
            WHERE stream_id = p_stream_id AND number >= v_middle AND number < v_end
            ORDER BY number LIMIT 1;
        IF v_time < p_time THEN
            v_first := v_next + 1;
        ELSE
            v_end := v_middle;
        END IF;
    END LOOP;
    RETURN v_first;
END $$;

-- The number before the first one that a group would get; NULL for one ahead of the stream.
CREATE FUNCTION tidings_stream_position(
    p_stream_id bigint, p_tail bigint, p_head bigint, p_kind text, p_value bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE p_kind
        WHEN 'latest' THEN p_head
        WHEN 'earliest' THEN p_tail - 1
        WHEN 'after' THEN CASE WHEN p_value <= p_head THEN greatest(p_value, p_tail - 1) END
        WHEN 'at' THEN tidings_stream_first_at(p_stream_id, p_tail, p_head, p_value) - 1
    END;
END $$;

-- Lets a group stand behind a message, with nothing claimed.
CREATE FUNCTION tidings_stream_place(p_group_id bigint, p_position bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tidings_stream_lease WHERE group_id = p_group_id;
    DELETE FROM tidings_stream_retry WHERE group_id = p_group_id;
    INSERT INTO tidings_stream_lease
        VALUES (p_group_id, p_position, p_position + 1, 0, '', tidings_stream_now(), NULL, '', NULL,
            p_position);
    PERFORM tidings_stream_set_floor(
        p_group_id, (SELECT floor_id FROM tidings_stream_floor(p_group_id)), tidings_stream_now(), NULL,
        p_position + 1);
END $$;

-- Creates a group, and the stream, unless they exist. Returns NULL, or the number of the newest
-- message when the place is ahead of it; then nothing was created.
CREATE FUNCTION tidings_stream_open_group(
    p_stream text, p_group text, p_kind text, p_value bigint
) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream tidings_stream;
    v_head bigint;
    v_position bigint;
    v_group_id bigint;
BEGIN
    IF EXISTS (SELECT 1 FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group)
    THEN
        RETURN NULL;
    END IF;
    PERFORM tidings_stream_begin(true);
    IF p_kind = 'after' AND p_value > 0
        AND NOT EXISTS (SELECT 1 FROM tidings_stream WHERE name = p_stream)
    THEN
        RETURN 0;
    END IF;
    v_stream := tidings_stream_lock(p_stream);
    IF EXISTS (SELECT 1 FROM tidings_stream_group
        WHERE stream_id = v_stream.stream_id AND name = p_group)
    THEN
        RETURN NULL;
    END IF;
    v_head := (tidings_stream_head(v_stream.stream_id, v_stream.tail)).number;
    v_position := tidings_stream_position(v_stream.stream_id, v_stream.tail, v_head, p_kind, p_value);
    IF v_position IS NULL THEN
        RETURN v_head;
    END IF;
    INSERT INTO tidings_stream_group (stream_id, name) VALUES (v_stream.stream_id, p_group)
        RETURNING group_id INTO v_group_id;
    PERFORM tidings_stream_place(v_group_id, v_position);
    RETURN NULL;
END $$;

-- Moves a group, and drops what it has pending. Returns NULL, or the number of the newest message when the
-- place is ahead of it; then nothing was changed. No row for a group that does not exist.
CREATE FUNCTION tidings_stream_seek(
    p_stream text, p_group text, p_kind text, p_value bigint
) RETURNS SETOF bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream tidings_stream;
    v_head bigint;
    v_position bigint;
    v_group_id bigint;
BEGIN
    PERFORM tidings_stream_begin(true);
    SELECT * INTO v_stream FROM tidings_stream WHERE name = p_stream FOR NO KEY UPDATE;
    PERFORM set_config('lock_timeout', '20ms', true);
    SELECT group_id INTO v_group_id FROM tidings_stream_group
        WHERE stream_id = v_stream.stream_id AND name = p_group FOR NO KEY UPDATE;
    IF v_group_id IS NULL THEN
        RETURN;
    END IF;
    v_head := (tidings_stream_head(v_stream.stream_id, v_stream.tail)).number;
    v_position := tidings_stream_position(v_stream.stream_id, v_stream.tail, v_head, p_kind, p_value);
    IF v_position IS NULL THEN
        RETURN NEXT v_head;
        RETURN;
    END IF;
    PERFORM tidings_stream_place(v_group_id, v_position);
    RETURN NEXT NULL;
END $$;

-- Takes a group out of sight, with what it has pending: into a stream of its own that is out of sight, whose id
-- it returns; NULL when there is no such group.
CREATE FUNCTION tidings_stream_hide_group(p_stream text, p_group text) RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream_id bigint;
    v_group_id bigint;
BEGIN
    PERFORM tidings_stream_begin(true, '200ms');
    SELECT g.group_id INTO v_group_id
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR UPDATE OF g;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO tidings_stream (name) VALUES (E'\x01' || 'group ' || v_group_id)
        RETURNING stream_id INTO v_stream_id;
    UPDATE tidings_stream_group SET stream_id = v_stream_id WHERE group_id = v_group_id;
    RETURN v_stream_id;
END $$;

-- Deletes a message, and returns whether it was there. Its row stays: the newest one says how far a stream has
-- come. If it waits for an attempt or for its ordering key, the next claim of the group finds it gone.
CREATE FUNCTION tidings_stream_delete_message(p_stream text, p_number bigint) RETURNS boolean
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream tidings_stream;
    v_group_id bigint;
    v_found boolean;
    v_now bigint;
BEGIN
    PERFORM tidings_stream_begin(true);
    SELECT * INTO v_stream FROM tidings_stream WHERE name = p_stream FOR NO KEY UPDATE;
    UPDATE tidings_stream_message SET headers = '', payload = ''
        WHERE stream_id = v_stream.stream_id AND number = p_number AND number >= v_stream.tail
            AND headers IS DISTINCT FROM '';
    v_found := FOUND;
    PERFORM set_config('lock_timeout', '20ms', true);
    FOR v_group_id IN
        SELECT group_id FROM tidings_stream_group WHERE stream_id = v_stream.stream_id
        ORDER BY group_id FOR NO KEY UPDATE
    LOOP
        v_now := tidings_stream_now();
        UPDATE tidings_stream_retry SET due = v_now
            WHERE group_id = v_group_id AND number = p_number AND claim IS NULL;
        PERFORM tidings_stream_lower_floor(v_group_id, v_now);
    END LOOP;
    RETURN v_found;
END $$;

-- Takes a stream out of sight, and returns its id; NULL when there is none. Its messages, groups and publish keys
-- are still there, out of reach: its name begins with a control character now, which no stream's name has.
CREATE FUNCTION tidings_stream_hide(p_stream text) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_stream_id bigint;
BEGIN
    PERFORM tidings_stream_begin(true);
    UPDATE tidings_stream SET name = E'\x01' || stream_id WHERE name = p_stream
        RETURNING stream_id INTO v_stream_id;
    RETURN v_stream_id;
END $$;

-- Removes up to p_chunk messages, publish keys or retries of a stream out of sight, and at last the stream;
-- returns whether that is done.
CREATE FUNCTION tidings_stream_remove_hidden(p_stream_id bigint, p_chunk bigint) RETURNS boolean
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_tail bigint;
    v_keep bigint;
    v_group_id bigint;
BEGIN
    PERFORM tidings_stream_begin(false);
    SELECT tail INTO v_tail FROM tidings_stream WHERE stream_id = p_stream_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    v_keep := tidings_stream_end_of_chunk(p_stream_id, v_tail,
        least(v_tail + p_chunk, (tidings_stream_head(p_stream_id, v_tail)).number + 1));
    IF v_keep > v_tail THEN
        DELETE FROM tidings_stream_message
            WHERE stream_id = p_stream_id AND number >= v_tail AND number < v_keep;
        UPDATE tidings_stream SET tail = v_keep WHERE stream_id = p_stream_id;
        RETURN false;
    END IF;
    DELETE FROM tidings_stream_publish_key WHERE stream_id = p_stream_id AND key IN (
        SELECT key FROM tidings_stream_publish_key WHERE stream_id = p_stream_id
        ORDER BY key LIMIT p_chunk);
    IF FOUND THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    SELECT group_id INTO v_group_id FROM tidings_stream_group
        WHERE stream_id = p_stream_id ORDER BY name LIMIT 1 FOR UPDATE;
    IF FOUND THEN
        DELETE FROM tidings_stream_retry WHERE group_id = v_group_id AND number IN (
            SELECT number FROM tidings_stream_retry WHERE group_id = v_group_id
            ORDER BY number LIMIT p_chunk);
        IF NOT FOUND THEN
            DELETE FROM tidings_stream_lease WHERE group_id = v_group_id;
            DELETE FROM tidings_stream_retry_floor WHERE group_id = v_group_id;
            DELETE FROM tidings_stream_member WHERE group_id = v_group_id;
            DELETE FROM tidings_stream_group WHERE group_id = v_group_id;
        END IF;
        RETURN false;
    END IF;
    DELETE FROM tidings_stream WHERE stream_id = p_stream_id;
    RETURN true;
END $$;

-- Notes that consumers are alive for some time, or, when it is zero, that they have gone. Rows are
-- locked in one order.
CREATE FUNCTION tidings_stream_check_in(
    p_streams text[], p_groups text[], p_consumers text[], p_ttl bigint
) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_expires bigint := tidings_stream_now() + p_ttl;
BEGIN
    PERFORM tidings_stream_begin(false);
    IF p_ttl = 0 THEN
        DELETE FROM tidings_stream_member WHERE (group_id, consumer) IN (
            SELECT m.group_id, m.consumer
            FROM unnest(p_streams, p_groups, p_consumers) AS u (stream, grp, consumer)
            JOIN tidings_stream s ON s.name = u.stream
            JOIN tidings_stream_group g ON g.stream_id = s.stream_id AND g.name = u.grp
            JOIN tidings_stream_member m ON m.group_id = g.group_id AND m.consumer = u.consumer
            ORDER BY 1, 2 FOR UPDATE OF m);
    ELSE
        INSERT INTO tidings_stream_member
            SELECT DISTINCT g.group_id, u.consumer COLLATE "C", v_expires
            FROM unnest(p_streams, p_groups, p_consumers) AS u (stream, grp, consumer)
            JOIN tidings_stream s ON s.name = u.stream
            JOIN tidings_stream_group g ON g.stream_id = s.stream_id AND g.name = u.grp
            ORDER BY 1, 2
            ON CONFLICT (group_id, consumer) DO UPDATE SET expires = excluded.expires;
    END IF;
END $$;
