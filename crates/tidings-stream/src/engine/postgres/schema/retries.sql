-- Where looks for retries begin. A retry is gone soon, but while an old snapshot is held its entries
-- stay in the indexes, in front of those that count, and each look from the beginning would go through
-- all of them. Floors are replaced and not updated for the same reason: the newest is found first,
-- however many are behind it.

-- The floor of a group. In a FROM clause, where the planner puts its text in its place, it costs no call.
CREATE FUNCTION tidings_stream_floor(p_group_id bigint) RETURNS SETOF tidings_stream_retry_floor
LANGUAGE sql STABLE AS $$
    SELECT * FROM tidings_stream_retry_floor
    WHERE group_id = p_group_id ORDER BY floor_id DESC LIMIT 1
$$;

-- Replaces the floor of a locked group.
CREATE FUNCTION tidings_stream_set_floor(
    p_group_id bigint, p_old bigint, p_waiting bigint, p_claimed bigint, p_lowest bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tidings_stream_retry_floor (group_id, waiting, claimed, lowest)
        VALUES (p_group_id, p_waiting, p_claimed, p_lowest);
    DELETE FROM tidings_stream_retry_floor WHERE group_id = p_group_id AND floor_id = p_old;
END $$;

-- Keeps the floor of a locked group below what waits from p_now on: the clock may have been set back.
CREATE FUNCTION tidings_stream_lower_floor(p_group_id bigint, p_now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_floor tidings_stream_retry_floor;
BEGIN
    SELECT * INTO v_floor FROM tidings_stream_floor(p_group_id);
    IF v_floor.waiting > p_now THEN
        PERFORM tidings_stream_set_floor(
            p_group_id, v_floor.floor_id, p_now, v_floor.claimed, v_floor.lowest);
    END IF;
END $$;

-- When the first retry that waits is due; NULL if none waits.
CREATE FUNCTION tidings_stream_first_due(p_group_id bigint, p_floor bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_due bigint;
BEGIN
    SELECT due INTO v_due FROM tidings_stream_retry
        WHERE group_id = p_group_id AND claim IS NULL
            AND due >= p_floor AND due < tidings_stream_held_back()
        ORDER BY due LIMIT 1;
    RETURN v_due;
END $$;

-- When a message is due that waits for earlier ones of its ordering key.
CREATE FUNCTION tidings_stream_held_back() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT 1::bigint << 60
$$;

-- The ordering key among headers, as it is in their JSON; NULL if there is none. A quote inside of a name has a
-- backslash before it. What is in quotes is characters, escapes (whose backslash is doubled here) and bytes of
-- other characters.
CREATE FUNCTION tidings_stream_ordering_key(p_headers bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT decode(substring(encode(p_headers, 'escape') FROM
        '[{,]"ordering-key":("(?:[^"\\]|\\\\(?:\\\\|[^\\])|\\[0-7]{3})*")'), 'escape')
$$;

-- Lets the first message that waits for each of some ordering keys be claimed, unless an earlier one has the
-- key, and returns whether there is one.
CREATE FUNCTION tidings_stream_free_keys(p_group_id bigint, p_keys bytea[], p_now bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tidings_stream_retry SET due = p_now, since = p_now
        WHERE group_id = p_group_id AND due = tidings_stream_held_back() AND number IN (
            SELECT first.number FROM tidings_stream_floor(p_group_id) floor, unnest(p_keys) AS freed (key)
            CROSS JOIN LATERAL (
                SELECT number FROM tidings_stream_retry
                WHERE group_id = p_group_id AND ordering_key = freed.key AND number >= floor.lowest
                ORDER BY number LIMIT 1) AS first);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tidings_stream_lower_floor(p_group_id, p_now);
    RETURN true;
END $$;
