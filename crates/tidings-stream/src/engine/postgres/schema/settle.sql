-- Ending and extending claims.
--
-- Receipts of one claim come as a run: the number of the first, and a character for each number from there
-- on, which is a dot if the run does not have it. What is returned has a bit for each. A run of new messages lies
-- within its claim's lease, if that is still there; a lease that has expired leaves a row for each message.

-- The bits of a run that are open in a lease.
CREATE FUNCTION tidings_stream_open_bits(p_lease tidings_stream_lease, p_base bigint, p_mask varbit)
RETURNS varbit LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(~p_lease.settled || repeat('0', length(p_mask))::varbit
        FROM (p_base - p_lease.lo)::integer + 1 FOR length(p_mask)) & p_mask
$$;

-- The open lease of a claim that has a message; none if it has expired. In a FROM clause, where the planner
-- puts its text in its place, it costs no call.
CREATE FUNCTION tidings_stream_lease_of(p_group_id bigint, p_claim bigint, p_base bigint)
RETURNS SETOF tidings_stream_lease LANGUAGE sql STABLE AS $$
    SELECT * FROM (
        SELECT * FROM tidings_stream_lease WHERE group_id = p_group_id AND hi >= p_base
        ORDER BY hi LIMIT 1) AS lease
    WHERE claim = p_claim AND lo <= p_base AND deadline IS NOT NULL
$$;

-- Ends claims. The characters say how: a acknowledged, r retry, l released, d dead, x lost to trim. p_delays
-- and p_errors have an entry for each retry; p_targets, p_letters and p_places, which is the order of writing,
-- for each dead letter. Returns which receipts were obeyed, except those of dead letters whose messages are
-- gone, and whether messages can be claimed that waited for their ordering keys; no row for a group that does
-- not exist.
CREATE FUNCTION tidings_stream_settle(
    p_stream text, p_group text, p_claims bigint[], p_bases bigint[], p_kinds text[],
    p_delays bigint[], p_errors bytea[], p_targets text[], p_letters bytea[], p_places bigint[]
) RETURNS TABLE (obeyed text[], has_freed boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_group_id bigint;
    v_stream_id bigint;
    v_now bigint;
    v_newest bigint;
    v_lease tidings_stream_lease;
    v_mask varbit;
    v_done varbit;
    v_rest varbit;
    v_at integer;
    v_kind text;
    v_number bigint;
    v_attempts integer;
    v_error bytea;
    v_key bytea;
    v_keys bytea[];
    v_retries integer := 0;
    v_deaths integer := 0;
    v_has_returned boolean := false;
    v_dying integer[];
    v_numbers bigint[];
    v_runs integer[];
    v_item integer;
    v_dead bigint := 0;
    v_lost bigint := 0;
    v_target text;
    v_into tidings_stream;
    v_head bigint;
    v_bytes bigint;
    v_end bigint;
BEGIN
    -- A dead letter is a publish: its id must not be given to another one after a crash.
    PERFORM tidings_stream_begin(cardinality(p_targets) > 0, '200ms');
    SELECT g.group_id, g.stream_id INTO v_group_id, v_stream_id
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR NO KEY UPDATE OF g;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_now := tidings_stream_now();
    SELECT hi INTO v_newest FROM tidings_stream_lease
        WHERE group_id = v_group_id ORDER BY hi DESC LIMIT 1;
    obeyed := p_kinds;
    FOR i IN 1 .. cardinality(p_claims) LOOP
        v_mask := translate(p_kinds[i], '.arldx', '011111')::varbit;
        v_done := v_mask & ~v_mask;
        SELECT * INTO v_lease FROM tidings_stream_lease_of(v_group_id, p_claims[i], p_bases[i]);
        IF FOUND THEN
            v_done := tidings_stream_open_bits(v_lease, p_bases[i], v_mask);
            v_lease.settled := v_lease.settled | substring(
                repeat('0', (p_bases[i] - v_lease.lo)::integer)::varbit || v_done
                    || repeat('0', length(v_lease.settled))::varbit
                FROM 1 FOR length(v_lease.settled));
            IF position(B'0' IN v_lease.settled) > 0 THEN
                UPDATE tidings_stream_lease SET settled = v_lease.settled
                    WHERE group_id = v_group_id AND hi = v_lease.hi;
            ELSIF v_lease.hi = v_newest THEN
                UPDATE tidings_stream_lease SET settled = v_lease.settled, deadline = NULL
                    WHERE group_id = v_group_id AND hi = v_lease.hi;
            ELSE
                DELETE FROM tidings_stream_lease WHERE group_id = v_group_id AND hi = v_lease.hi;
            END IF;
        END IF;
        -- What was in the lease and is acknowledged is done with. The others are looked at one by one.
        v_rest := v_mask & ~(v_done & translate(p_kinds[i], '.arldx', '010000')::varbit);
        LOOP
            v_at := position(B'1' IN v_rest);
            EXIT WHEN v_at = 0;
            v_rest := set_bit(v_rest, v_at - 1, 0);
            v_kind := substr(p_kinds[i], v_at, 1);
            v_number := p_bases[i] + v_at - 1;
            IF v_kind = 'r' THEN
                v_retries := v_retries + 1;
            ELSIF v_kind = 'd' THEN
                v_deaths := v_deaths + 1;
            END IF;
            IF get_bit(v_done, v_at - 1) = 1 THEN
                v_attempts := 1;
                v_error := NULL;
                v_key := NULL;
            ELSE
                DELETE FROM tidings_stream_retry
                    WHERE group_id = v_group_id AND number = v_number AND claim = p_claims[i]
                    RETURNING attempts, last_error, ordering_key INTO v_attempts, v_error, v_key;
                CONTINUE WHEN NOT FOUND;
                v_done := set_bit(v_done, v_at - 1, 1);
            END IF;
            IF v_kind = 'r' THEN
                INSERT INTO tidings_stream_retry VALUES (v_group_id, v_number,
                    v_now + p_delays[v_retries], v_now, v_attempts, NULL, NULL, p_errors[v_retries], v_key);
            ELSIF v_kind = 'l' THEN
                INSERT INTO tidings_stream_retry VALUES (v_group_id, v_number,
                    v_now, v_now, v_attempts - 1, NULL, NULL, v_error, v_key);
            ELSIF v_kind = 'd' THEN
                v_dying := v_dying || v_deaths;
                v_numbers[v_deaths] := v_number;
                v_runs[v_deaths] := i;
            ELSIF v_kind = 'x' THEN
                v_lost := v_lost + 1;
            END IF;
            IF v_kind IN ('r', 'l') THEN
                v_has_returned := true;
            ELSIF v_key IS NOT NULL THEN
                v_keys := v_keys || v_key;
            END IF;
        END LOOP;
        obeyed[i] := v_done::text;
    END LOOP;
    IF v_has_returned THEN
        PERFORM tidings_stream_lower_floor(v_group_id, v_now);
    END IF;
    has_freed := v_keys IS NOT NULL AND tidings_stream_free_keys(v_group_id, v_keys, v_now);

    -- The copies are made by the transaction that ends the claims. Streams are locked in one order,
    -- which is that of the outbox.
    IF v_dying IS NOT NULL THEN
        PERFORM set_config('lock_timeout', '10s', true);
        SELECT array_agg(d.i ORDER BY p_places[d.i]) INTO v_dying FROM unnest(v_dying) AS d (i);
        FOR v_target IN
            SELECT DISTINCT p_targets[d.i] COLLATE "C" FROM unnest(v_dying) AS d (i) ORDER BY 1
        LOOP
            v_into := tidings_stream_lock(v_target);
            SELECT h.number, h.bytes INTO v_head, v_bytes
                FROM tidings_stream_head(v_into.stream_id, v_into.tail) h;
            FOREACH v_item IN ARRAY v_dying LOOP
                CONTINUE WHEN p_targets[v_item] <> v_target;
                INSERT INTO tidings_stream_message
                    SELECT v_into.stream_id, v_head + 1, tidings_stream_now(),
                        v_bytes + tidings_stream_size(p_letters[v_item], payload), p_letters[v_item],
                        payload
                    FROM tidings_stream_message
                    WHERE stream_id = v_stream_id AND number = v_numbers[v_item]
                        AND headers IS DISTINCT FROM ''
                    RETURNING bytes INTO v_end;
                IF FOUND THEN
                    v_bytes := v_end;
                    v_head := v_head + 1;
                    v_dead := v_dead + 1;
                ELSE
                    v_lost := v_lost + 1;
                    v_at := (v_numbers[v_item] - p_bases[v_runs[v_item]])::integer + 1;
                    obeyed[v_runs[v_item]] := overlay(obeyed[v_runs[v_item]] PLACING '0' FROM v_at);
                END IF;
            END LOOP;
            PERFORM tidings_stream_trim_locked(v_into, v_head, 1000, false);
        END LOOP;
    END IF;
    IF v_dead > 0 OR v_lost > 0 THEN
        UPDATE tidings_stream_group
            SET dead_lettered = dead_lettered + v_dead, lost_to_trim = lost_to_trim + v_lost
            WHERE group_id = v_group_id;
    END IF;
    RETURN NEXT;
END $$;

-- Acknowledges one message in a transaction of its handler's own, whose settings stay as they are. Returns
-- whether the receipt was obeyed; no row for a group that does not exist. It waits for the group for longer than
-- others, because the whole transaction would have to be tried again.
CREATE FUNCTION tidings_stream_settle_in(p_stream text, p_group text, p_number bigint, p_claim bigint)
RETURNS SETOF boolean LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET lock_timeout = '10s' SET synchronous_commit = 'off' AS $$
BEGIN
    PERFORM tidings_stream_begin(false);
    PERFORM FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR NO KEY UPDATE OF g;
    RETURN QUERY SELECT s.obeyed = '{1}' FROM tidings_stream_settle(
        p_stream, p_group, ARRAY[p_claim], ARRAY[p_number], '{a}', '{}', '{}', '{}', '{}', '{}') s;
END $$;

-- Lets claims last for p_visibility from now, at least. All messages of a lease share its deadline. Returns
-- which receipts were obeyed; no row for a group that does not exist.
CREATE FUNCTION tidings_stream_extend(
    p_stream text, p_group text, p_claims bigint[], p_bases bigint[], p_masks text[], p_visibility bigint
) RETURNS SETOF text[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_group_id bigint;
    v_deadline bigint;
    v_lease tidings_stream_lease;
    v_mask varbit;
    v_done varbit;
    v_rest varbit;
    v_obeyed text[] := p_masks;
    v_at integer;
BEGIN
    PERFORM tidings_stream_begin(false, '200ms');
    SELECT g.group_id INTO v_group_id
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR NO KEY UPDATE OF g;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_deadline := tidings_stream_now() + p_visibility;
    FOR i IN 1 .. cardinality(p_claims) LOOP
        v_mask := translate(p_masks[i], '.', '0')::varbit;
        v_done := v_mask & ~v_mask;
        SELECT * INTO v_lease FROM tidings_stream_lease_of(v_group_id, p_claims[i], p_bases[i]);
        IF FOUND THEN
            v_done := tidings_stream_open_bits(v_lease, p_bases[i], v_mask);
            IF v_lease.deadline < v_deadline AND position(B'1' IN v_done) > 0 THEN
                UPDATE tidings_stream_lease SET deadline = v_deadline
                    WHERE group_id = v_group_id AND hi = v_lease.hi;
            END IF;
        END IF;
        v_rest := v_mask & ~v_done;
        LOOP
            v_at := position(B'1' IN v_rest);
            EXIT WHEN v_at = 0;
            v_rest := set_bit(v_rest, v_at - 1, 0);
            UPDATE tidings_stream_retry SET due = greatest(due, v_deadline)
                WHERE group_id = v_group_id AND number = p_bases[i] + v_at - 1 AND claim = p_claims[i];
            v_done := set_bit(v_done, v_at - 1, FOUND::integer);
        END LOOP;
        v_obeyed[i] := v_done::text;
    END LOOP;
    RETURN NEXT v_obeyed;
END $$;
