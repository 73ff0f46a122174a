-- Looking at streams and groups.

-- A stream with each of its groups, or with none: one statement, so all of the same moment. The lag in
-- time is that of the oldest message that is kept and that a group has yet to finish.
CREATE FUNCTION tidings_stream_stats(
    p_stream text, OUT tail bigint, OUT head bigint, OUT name text, OUT cursor bigint,
    OUT first_needed bigint, OUT pending bigint, OUT dead_lettered bigint, OUT lost_to_trim bigint,
    OUT lag bigint
) RETURNS SETOF record LANGUAGE sql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT s.tail, coalesce(newest.number, s.tail - 1), g.name, place.hi,
        needed.first, again.count + leased.count, g.dead_lettered, g.lost_to_trim, late.lag
    FROM tidings_stream s
    LEFT JOIN LATERAL (
        SELECT number FROM tidings_stream_message m
        WHERE m.stream_id = s.stream_id AND m.number >= s.tail
        ORDER BY number DESC LIMIT 1) AS newest ON true
    LEFT JOIN tidings_stream_group g ON g.stream_id = s.stream_id
    LEFT JOIN LATERAL (
        SELECT max(hi) AS hi FROM tidings_stream_lease l WHERE l.group_id = g.group_id
        ) AS place ON true
    LEFT JOIN LATERAL (
        SELECT count(*) AS count, min(number) AS first FROM tidings_stream_retry r
        WHERE r.group_id = g.group_id) AS again ON true
    LEFT JOIN LATERAL (
        SELECT coalesce(sum(bit_count(~settled)), 0)::bigint AS count,
            min(lo + position(B'0' IN settled) - 1) AS first
        FROM tidings_stream_lease l WHERE l.group_id = g.group_id AND deadline IS NOT NULL
        ) AS leased ON true
    LEFT JOIN LATERAL (
        SELECT greatest(s.tail, least(place.hi + 1, again.first, leased.first)) AS first
        ) AS needed ON true
    LEFT JOIN LATERAL (
        SELECT tidings_stream_now() - m.created_at AS lag FROM tidings_stream_message m
        WHERE m.stream_id = s.stream_id AND m.number >= needed.first
        ORDER BY m.number LIMIT 1) AS late ON true
    WHERE s.name = p_stream ORDER BY g.name
$$;

-- The streams whose names begin with a prefix, in order. What follows the prefix in a name is shorter than
-- what ends the range, of which each character is the last one.
CREATE FUNCTION tidings_stream_list(p_prefix text) RETURNS SETOF text LANGUAGE sql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT name FROM tidings_stream
    WHERE name >= p_prefix AND name < p_prefix || repeat(U&'\+10FFFF', 200) AND name >= ' ' ORDER BY name
$$;

-- A page of what a group has begun and not finished.
CREATE FUNCTION tidings_stream_pending(
    p_group_id bigint, p_after bigint, p_max bigint,
    OUT number bigint, OUT attempts integer, OUT consumer text, OUT age bigint, OUT due_in bigint,
    OUT last_error bytea
) RETURNS SETOF record LANGUAGE sql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT number, attempts, consumer, now - since, due - now, last_error
    FROM tidings_stream_now() AS now, (
        (SELECT number, attempts, consumer, since, due, last_error FROM tidings_stream_retry
        WHERE group_id = p_group_id AND number > p_after ORDER BY number LIMIT p_max)
        UNION ALL
        (SELECT lo + i, 1, consumer, since, deadline, NULL
        FROM tidings_stream_lease, generate_series(0, length(settled) - 1) AS i
        WHERE group_id = p_group_id AND hi > p_after AND deadline IS NOT NULL
            AND lo + i > p_after AND get_bit(settled, i) = 0
        ORDER BY 1 LIMIT p_max)) AS pending
    ORDER BY number LIMIT p_max
$$;

-- The consumers of a group that are alive or hold a claim.
CREATE FUNCTION tidings_stream_members(
    p_group_id bigint, OUT consumer text, OUT is_alive boolean, OUT pending bigint
) RETURNS SETOF record LANGUAGE sql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT consumer, bool_or(is_alive), sum(pending)::bigint FROM (
        SELECT consumer, true AS is_alive, 0 AS pending FROM tidings_stream_member
        WHERE group_id = p_group_id AND expires > tidings_stream_now()
        UNION ALL
        SELECT consumer, false, 1 FROM tidings_stream_retry
        WHERE group_id = p_group_id AND claim IS NOT NULL
        UNION ALL
        SELECT consumer, false, bit_count(~settled) FROM tidings_stream_lease
        WHERE group_id = p_group_id AND deadline IS NOT NULL) AS known
    GROUP BY consumer ORDER BY consumer COLLATE "C"
$$;
