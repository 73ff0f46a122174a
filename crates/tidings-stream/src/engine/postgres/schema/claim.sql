-- Claiming. A transaction that changes what a group has claimed has locked the group's row, which is not
-- written for the reason that a stream's is not: a group's place is the largest number in its leases.
-- These are single statements, so the lock is held for as long as the server computes, whatever
-- becomes of the client: what they return is so little that it fits into the buffers of a connection
-- whose client does not read any more. Open leases from a number on are those whose `coalesce(deadline,
-- 0)` is above zero: `deadline IS NOT NULL` would let the planner choose the index of deadlines, and go
-- through all of it. Errors of earlier attempts are read with the content.

-- Whether a claim would find something, or a bound of earliest deadlines is out of date, which the claim
-- brings up to date.
CREATE FUNCTION tidings_stream_is_ready(p_group_id bigint, p_stream_id bigint, p_tail bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := tidings_stream_now();
    v_newest tidings_stream_lease;
BEGIN
    SELECT * INTO v_newest FROM tidings_stream_lease
        WHERE group_id = p_group_id ORDER BY hi DESC LIMIT 1;
    RETURN v_newest.hi < p_tail - 1
        OR EXISTS (SELECT 1 FROM tidings_stream_message
            WHERE stream_id = p_stream_id AND number > v_newest.hi)
        OR coalesce(v_newest.next_deadline <= v_now, false)
        OR EXISTS (SELECT 1 FROM tidings_stream_floor(p_group_id) f
            WHERE f.claimed <= v_now OR tidings_stream_first_due(p_group_id, f.waiting) <= v_now);
END $$;

-- The same for many groups; true for one that does not exist.
CREATE FUNCTION tidings_stream_ready(p_streams text[], p_groups text[]) RETURNS boolean[]
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_ready boolean[] := '{}';
    v_stream_id bigint;
    v_group_id bigint;
    v_tail bigint;
BEGIN
    FOR i IN 1 .. cardinality(p_streams) LOOP
        SELECT g.group_id, s.stream_id, s.tail INTO v_group_id, v_stream_id, v_tail
            FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
            WHERE s.name = p_streams[i] AND g.name = p_groups[i];
        v_ready[i] := NOT FOUND OR coalesce(
            tidings_stream_is_ready(v_group_id, v_stream_id, v_tail), true);
    END LOOP;
    RETURN v_ready;
END $$;

-- Claims what is due again, then new messages. The claim's number is even; it is one more for
-- messages that have a row of their own. p_budget bounds the bytes, which the last message may overrun.
-- The content of new messages is returned if it has p_inline bytes at most, and has to be asked
-- for otherwise; its numbers are NULL if none between o_lo and o_hi is missing. In the order of keys, each
-- new message has a row of its own. Returns NULL for a group that does not exist.
CREATE FUNCTION tidings_stream_claim(
    p_stream text, p_group text, p_claim bigint, p_consumer text, p_max bigint, p_visibility bigint,
    p_budget bigint, p_inline bigint, p_in_order boolean, p_max_in_flight bigint,
    OUT o_stream_id bigint, OUT o_lo bigint, OUT o_hi bigint,
    OUT o_new bigint[], OUT o_times bigint[], OUT o_headers bytea[], OUT o_payloads bytea[],
    OUT o_numbers bigint[], OUT o_attempts integer[],
    OUT o_next_due bigint
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_group_id bigint;
    v_tail bigint;
    v_now bigint;
    v_newest tidings_stream_lease;
    v_lease tidings_stream_lease;
    v_floor tidings_stream_retry_floor;
    v_waiting bigint;
    v_claimed bigint;
    v_lowest bigint;
    v_expired integer := 0;
    v_next bigint;
    v_first bigint;
    v_lost bigint := 0;
    v_gone bigint;
    v_bytes bigint := 0;
    v_start bigint;
    v_end bigint;
    v_holes bigint := 0;
    v_max bigint := p_max;
    v_new record;
    v_keys bytea[];
    v_held_back integer := 0;
BEGIN
    SELECT g.group_id, s.stream_id, s.tail INTO v_group_id, o_stream_id, v_tail
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- A claim that finds nothing locks and writes nothing.
    IF NOT tidings_stream_is_ready(v_group_id, o_stream_id, v_tail) THEN
        v_now := tidings_stream_now();
        SELECT * INTO v_newest FROM tidings_stream_lease
            WHERE group_id = v_group_id ORDER BY hi DESC LIMIT 1;
        IF EXISTS (SELECT 1 FROM tidings_stream_lease
            WHERE group_id = v_group_id AND hi >= v_newest.first_open AND coalesce(deadline, 0) > 0)
        THEN
            v_next := v_newest.next_deadline;
        END IF;
        SELECT * INTO v_floor FROM tidings_stream_floor(v_group_id);
        o_next_due := least(v_next, v_floor.claimed,
            tidings_stream_first_due(v_group_id, v_floor.waiting)) - v_now;
        RETURN;
    END IF;

    PERFORM tidings_stream_begin(false, '200ms');
    -- A deleted group is in another stream, out of sight.
    PERFORM FROM tidings_stream_group
        WHERE group_id = v_group_id AND stream_id = o_stream_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        o_stream_id := NULL;
        RETURN;
    END IF;
    v_now := tidings_stream_now();
    SELECT tail INTO v_tail FROM tidings_stream WHERE stream_id = o_stream_id;
    SELECT * INTO v_newest FROM tidings_stream_lease
        WHERE group_id = v_group_id ORDER BY hi DESC LIMIT 1;
    SELECT hi, lo INTO v_first, v_lowest FROM tidings_stream_lease
        WHERE group_id = v_group_id AND hi >= v_newest.first_open AND coalesce(deadline, 0) > 0
        ORDER BY hi LIMIT 1;
    IF FOUND THEN
        v_next := v_newest.next_deadline;
    END IF;
    SELECT * INTO v_floor FROM tidings_stream_floor(v_group_id);
    v_waiting := v_floor.waiting;
    v_claimed := v_floor.claimed;

    -- Each open message of an expired lease gets a row of its own, with one attempt counted. Until it
    -- is claimed, the receipt of the lease is still good for it.
    IF v_next <= v_now THEN
        FOR v_lease IN
            SELECT * FROM tidings_stream_lease
            WHERE group_id = v_group_id AND deadline BETWEEN v_next AND v_now
            ORDER BY deadline LIMIT 8
        LOOP
            INSERT INTO tidings_stream_retry
                SELECT v_group_id, v_lease.lo + i, v_now, v_lease.since, 1, v_lease.claim, v_lease.consumer
                FROM generate_series(0, length(v_lease.settled) - 1) AS i
                WHERE get_bit(v_lease.settled, i) = 0;
            IF v_lease.hi = v_newest.hi THEN
                UPDATE tidings_stream_lease SET deadline = NULL
                    WHERE group_id = v_group_id AND hi = v_lease.hi;
            ELSE
                DELETE FROM tidings_stream_lease WHERE group_id = v_group_id AND hi = v_lease.hi;
            END IF;
            v_expired := v_expired + 1;
            v_claimed := least(v_claimed, v_now);
        END LOOP;
        SELECT deadline INTO v_next FROM tidings_stream_lease
            WHERE group_id = v_group_id AND deadline >= v_next AND (v_expired = 8 OR deadline > v_now)
            ORDER BY deadline LIMIT 1;
    END IF;
    IF v_newest.next_deadline <= v_now THEN
        UPDATE tidings_stream_lease SET next_deadline = v_next
            WHERE group_id = v_group_id AND hi = v_newest.hi;
    END IF;

    IF p_max_in_flight IS NOT NULL THEN
        v_max := greatest(0, least(p_max, p_max_in_flight
            - (SELECT count(*) FROM tidings_stream_retry
                WHERE group_id = v_group_id AND claim IS NOT NULL AND due > v_now)
            - (SELECT coalesce(sum(bit_count(~settled)), 0) FROM tidings_stream_lease
                WHERE group_id = v_group_id AND deadline > v_now)));
    END IF;

    -- What comes again: it was given back, or its claim has expired.
    IF v_claimed <= v_now OR EXISTS (SELECT 1 FROM tidings_stream_retry
        WHERE group_id = v_group_id AND claim IS NULL AND due BETWEEN v_waiting AND v_now)
    THEN
        WITH due AS MATERIALIZED (
            SELECT r.number, r.due, tidings_stream_size(m.headers, m.payload) AS size
            FROM (
                (SELECT number, due FROM tidings_stream_retry
                WHERE group_id = v_group_id AND claim IS NULL AND due BETWEEN v_waiting AND v_now
                ORDER BY due, number LIMIT v_max)
                UNION ALL
                (SELECT number, due FROM tidings_stream_retry
                WHERE group_id = v_group_id AND claim IS NOT NULL AND due BETWEEN v_claimed AND v_now
                ORDER BY due, number LIMIT v_max)) AS r
            LEFT JOIN tidings_stream_message m ON m.stream_id = o_stream_id AND m.number = r.number
            ORDER BY r.due, r.number LIMIT v_max
        ), counted AS MATERIALIZED (
            SELECT *, coalesce(sum(size) OVER (
                ORDER BY due, number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
            FROM due
        ), gone AS (
            DELETE FROM tidings_stream_retry r USING counted c
            WHERE r.group_id = v_group_id AND r.number = c.number AND c.size IS NULL AND c.before < p_budget
            RETURNING r.ordering_key
        ), taken AS (
            UPDATE tidings_stream_retry r
            SET due = v_now + p_visibility, since = v_now, attempts = least(r.attempts, 2147483646) + 1,
                claim = p_claim + 1, consumer = p_consumer
            FROM counted c
            WHERE r.group_id = v_group_id AND r.number = c.number AND c.size IS NOT NULL
                AND c.before < p_budget
            RETURNING r.number, r.attempts, c.due, c.size
        )
        SELECT array_agg(number ORDER BY due, number), array_agg(attempts ORDER BY due, number),
                coalesce(sum(size), 0), (SELECT count(*) FROM gone),
                (SELECT array_agg(DISTINCT ordering_key) FROM gone WHERE ordering_key IS NOT NULL)
            INTO o_numbers, o_attempts, v_bytes, v_gone, v_keys FROM taken;
        v_lost := v_gone;
        v_waiting := least(v_now, tidings_stream_first_due(v_group_id, v_waiting));
        IF v_claimed <= v_now THEN
            SELECT due INTO v_claimed FROM tidings_stream_retry
                WHERE group_id = v_group_id AND claim IS NOT NULL AND due >= v_claimed
                ORDER BY due LIMIT 1;
        ELSIF o_numbers IS NOT NULL THEN
            v_claimed := least(v_claimed, v_now + p_visibility);
        END IF;
        -- Looks may go through what has ended within some milliseconds.
        IF v_claimed IS DISTINCT FROM v_floor.claimed OR abs(v_waiting - v_floor.waiting) > 10 THEN
            PERFORM tidings_stream_set_floor(v_group_id, v_floor.floor_id, v_waiting, v_claimed,
                least(v_lowest, v_newest.hi + 1, (SELECT number FROM tidings_stream_retry
                    WHERE group_id = v_group_id AND number >= v_floor.lowest ORDER BY number LIMIT 1)));
        END IF;
        IF v_keys IS NOT NULL THEN
            PERFORM tidings_stream_free_keys(v_group_id, v_keys, v_now);
        END IF;
    END IF;

    -- What is new, as one lease. What lies between was trimmed before the group had come to it.
    o_lo := greatest(v_newest.hi + 1, v_tail);
    v_lost := v_lost + o_lo - 1 - v_newest.hi;
    o_hi := o_lo - 1;
    IF p_in_order THEN
        FOR v_new IN
            SELECT number, tidings_stream_ordering_key(headers) AS key,
                CASE WHEN headers IS DISTINCT FROM '' THEN tidings_stream_size(headers, payload) END AS size
            FROM tidings_stream_message WHERE stream_id = o_stream_id AND number >= o_lo ORDER BY number
        LOOP
            EXIT WHEN coalesce(cardinality(o_numbers), 0) >= v_max OR v_bytes >= p_budget
                OR v_held_back >= 500;
            v_holes := v_holes + v_new.number - 1 - o_hi;
            o_hi := v_new.number;
            IF v_new.size IS NULL THEN
                v_holes := v_holes + 1;
            ELSIF v_new.key IS NOT NULL AND EXISTS (SELECT 1 FROM tidings_stream_retry
                WHERE group_id = v_group_id AND ordering_key = v_new.key AND number >= v_floor.lowest)
            THEN
                v_held_back := v_held_back + 1;
                INSERT INTO tidings_stream_retry VALUES (v_group_id, v_new.number,
                    tidings_stream_held_back(), v_now, 0, NULL, NULL, NULL, v_new.key);
            ELSE
                INSERT INTO tidings_stream_retry VALUES (v_group_id, v_new.number,
                    v_now + p_visibility, v_now, 1, p_claim + 1, p_consumer, NULL, v_new.key);
                o_numbers := o_numbers || v_new.number;
                o_attempts := o_attempts || 1;
                v_bytes := v_bytes + v_new.size;
                v_claimed := least(v_claimed, v_now + p_visibility);
            END IF;
        END LOOP;
        o_lo := o_hi + 1;
        SELECT * INTO v_floor FROM tidings_stream_floor(v_group_id);
        IF coalesce(v_floor.claimed > v_claimed, v_claimed IS NOT NULL) THEN
            PERFORM tidings_stream_set_floor(
                v_group_id, v_floor.floor_id, v_floor.waiting, v_claimed, v_floor.lowest);
        END IF;
    ELSIF coalesce(cardinality(o_numbers), 0) < v_max AND v_bytes < p_budget THEN
        SELECT number, bytes INTO o_hi, v_end FROM tidings_stream_message
            WHERE stream_id = o_stream_id AND number >= o_lo
                AND number < o_lo + v_max - coalesce(cardinality(o_numbers), 0)
            ORDER BY number DESC LIMIT 1;
        IF NOT FOUND THEN
            o_hi := o_lo - 1;
            -- Messages that were removed by hand are skipped, and counted.
            SELECT number - 1 INTO v_end FROM tidings_stream_message
                WHERE stream_id = o_stream_id AND number >= o_lo ORDER BY number LIMIT 1;
            IF FOUND THEN
                v_holes := v_end - o_hi;
                o_lo := v_end + 1;
                o_hi := v_end;
            END IF;
        ELSE
            SELECT bytes - tidings_stream_size(headers, payload) INTO v_start
                FROM tidings_stream_message
                WHERE stream_id = o_stream_id AND number >= o_lo ORDER BY number LIMIT 1;
            -- All of them are gone if the stream is trimmed at this moment.
            v_start := coalesce(v_start, v_end - p_inline - 1);
            IF v_bytes + v_end - v_start > p_budget THEN
                SELECT number, bytes INTO o_hi, v_end FROM tidings_stream_message
                    WHERE stream_id = o_stream_id AND number BETWEEN o_lo AND o_hi
                        AND v_bytes + bytes - v_start >= p_budget
                    ORDER BY number LIMIT 1;
                IF NOT FOUND THEN
                    -- They were trimmed at this moment, too. The next claim counts them, and goes on behind.
                    o_hi := o_lo - 1;
                    v_end := v_start + p_budget;
                END IF;
            END IF;
            v_bytes := v_bytes + v_end - v_start;
            IF v_end - v_start <= p_inline THEN
                SELECT array_agg(created_at), array_agg(headers), array_agg(payload),
                        CASE WHEN count(*) < o_hi - o_lo + 1 THEN array_agg(number) END
                    INTO o_times, o_headers, o_payloads, o_new
                    FROM (SELECT number, created_at, headers, payload FROM tidings_stream_message
                        WHERE stream_id = o_stream_id AND number BETWEEN o_lo AND o_hi
                            AND headers IS DISTINCT FROM ''
                        ORDER BY number) AS content;
            END IF;
        END IF;
    END IF;
    IF o_hi > v_newest.hi THEN
        IF o_hi >= o_lo THEN
            v_next := least(v_next, v_now + p_visibility);
        END IF;
        INSERT INTO tidings_stream_lease VALUES (
            v_group_id, o_hi, o_lo, p_claim, p_consumer, v_now,
            CASE WHEN o_hi >= o_lo THEN v_now + p_visibility END,
            repeat('0', (o_hi - o_lo + 1)::integer)::varbit, v_next,
            coalesce(v_first, o_hi));
        DELETE FROM tidings_stream_lease
            WHERE group_id = v_group_id AND hi = v_newest.hi AND deadline IS NULL;
    END IF;

    v_lost := v_lost + v_holes;
    IF v_lost > 0 THEN
        UPDATE tidings_stream_group SET lost_to_trim = lost_to_trim + v_lost
            WHERE group_id = v_group_id;
    END IF;
    IF v_max < p_max AND coalesce(cardinality(o_numbers), 0) + o_hi - o_lo + 1 >= v_max THEN
        o_next_due := least(
            (SELECT due FROM tidings_stream_retry
                WHERE group_id = v_group_id AND claim IS NOT NULL AND due > v_now ORDER BY due LIMIT 1),
            (SELECT deadline FROM tidings_stream_lease
                WHERE group_id = v_group_id AND deadline > v_now ORDER BY deadline LIMIT 1)) - v_now;
    -- What turned out to be gone leaves room for more.
    ELSIF v_bytes >= p_budget OR v_lost > 0 OR v_held_back >= 500 THEN
        o_next_due := 0;
    ELSIF coalesce(cardinality(o_numbers), 0) + o_hi - o_lo + 1 < v_max THEN
        o_next_due := least(v_next, v_claimed, tidings_stream_first_due(v_group_id, v_waiting)) - v_now;
    END IF;
END $$;

-- Up to p_max messages of a stream after a number, 4096 at most; the last one may overrun p_budget bytes.
CREATE FUNCTION tidings_stream_page(
    p_stream text, p_after bigint, p_max bigint, p_budget bigint,
    OUT number bigint, OUT created_at bigint, OUT headers bytea, OUT payload bytea
) RETURNS SETOF record LANGUAGE sql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT number, created_at, headers, payload FROM (
        SELECT m.*, sum(tidings_stream_size(headers, payload)) OVER (
            ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM tidings_stream_message m
        WHERE stream_id = (SELECT stream_id FROM tidings_stream WHERE name = p_stream)
            AND number > greatest(p_after, (SELECT tail - 1 FROM tidings_stream WHERE name = p_stream))
            AND headers IS DISTINCT FROM ''
        ORDER BY number LIMIT least(p_max, 4096)) AS page
    WHERE coalesce(before, 0) < p_budget ORDER BY number
$$;

-- Hands back what a claim has taken, with its attempts not counted, and returns whether there was
-- anything: its client did not get to know of it.
CREATE FUNCTION tidings_stream_release_claim(p_stream text, p_group text, p_claim bigint)
RETURNS boolean LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_group_id bigint;
    v_now bigint;
    v_newest bigint;
    v_lease tidings_stream_lease;
    v_found boolean;
BEGIN
    PERFORM tidings_stream_begin(false, '200ms');
    SELECT g.group_id INTO v_group_id
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR NO KEY UPDATE OF g;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    v_now := tidings_stream_now();
    SELECT hi INTO v_newest FROM tidings_stream_lease
        WHERE group_id = v_group_id ORDER BY hi DESC LIMIT 1;
    UPDATE tidings_stream_retry
        SET due = v_now, since = v_now, claim = NULL, consumer = NULL, attempts = attempts - 1
        WHERE group_id = v_group_id AND claim IN (p_claim, p_claim + 1);
    v_found := FOUND;
    PERFORM tidings_stream_lower_floor(v_group_id, v_now);
    SELECT * INTO v_lease FROM tidings_stream_lease
        WHERE group_id = v_group_id AND deadline IS NOT NULL AND claim = p_claim;
    IF NOT FOUND THEN
        RETURN v_found;
    END IF;
    INSERT INTO tidings_stream_retry
        SELECT v_group_id, v_lease.lo + i, v_now, v_now, 0, NULL, NULL
        FROM generate_series(0, length(v_lease.settled) - 1) AS i
        WHERE get_bit(v_lease.settled, i) = 0;
    IF v_lease.hi = v_newest THEN
        UPDATE tidings_stream_lease SET deadline = NULL
            WHERE group_id = v_group_id AND hi = v_lease.hi;
    ELSE
        DELETE FROM tidings_stream_lease WHERE group_id = v_group_id AND hi = v_lease.hi;
    END IF;
    RETURN true;
END $$;
