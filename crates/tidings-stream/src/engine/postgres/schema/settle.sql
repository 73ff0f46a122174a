-- Ending and extending claims.
--
-- Receipts of one claim of new messages come as a run: the number of the first, and a bit for each
-- number from there on. A run lies within the claim's lease, if that is still there.

-- The bits of a run that are open in a lease.
CREATE FUNCTION tidings_stream_open_bits(p_lease tidings_stream_lease, p_base bigint, p_mask varbit)
RETURNS varbit LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(~p_lease.settled || repeat('0', length(p_mask))::varbit
        FROM (p_base - p_lease.lo)::integer + 1 FOR length(p_mask)) & p_mask
$$;

-- The messages of a run whose lease has expired, and that no other claim has taken since: those of its
-- mask that are not open in a lease. A lease that has expired leaves a row for each.
CREATE FUNCTION tidings_stream_late(p_group_id bigint, p_claim bigint, p_base bigint, p_late varbit)
RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT number FROM tidings_stream_retry
    WHERE group_id = p_group_id AND claim = p_claim
        AND number BETWEEN p_base AND p_base + length(p_late) - 1
        AND get_bit(p_late, (number - p_base)::integer) = 1
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

-- Ends claims. p_masks has all receipts of each run, p_acks those that are acknowledged. The rest
-- follows as items: all other receipts, and the outcomes that are no acknowledgement, those with the
-- place of their run. Kinds: 0 acknowledged, 1 retry, 2 released, 3 dead, 4 lost to trim. Returns which
-- receipts were obeyed, and whether messages can be claimed that waited for their ordering keys; no row for
-- a group that does not exist.
CREATE FUNCTION tidings_stream_settle(
    p_stream text, p_group text,
    p_claims bigint[], p_bases bigint[], p_masks text[], p_acks text[],
    p_numbers bigint[], p_item_claims bigint[], p_runs integer[], p_kinds integer[],
    p_delays bigint[], p_errors bytea[], p_targets text[], p_letters bytea[]
) RETURNS TABLE (masks text[], obeyed boolean[], has_freed boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_key bytea;
    v_keys bytea[];
    v_group_id bigint;
    v_stream_id bigint;
    v_now bigint;
    v_newest bigint;
    v_lease tidings_stream_lease;
    v_mask varbit;
    v_open varbit;
    v_number bigint;
    v_found boolean;
    v_dying integer[];
    v_item integer;
    v_dead bigint := 0;
    v_lost bigint := 0;
    v_target text;
    v_into tidings_stream;
    v_head bigint;
    v_bytes bigint;
BEGIN
    -- A dead letter is a publish: its id must not be given to another one after a crash.
    PERFORM tidings_stream_begin(3 = ANY (p_kinds));
    SELECT g.group_id, g.stream_id INTO v_group_id, v_stream_id
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR NO KEY UPDATE OF g;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_now := tidings_stream_now();
    SELECT hi INTO v_newest FROM tidings_stream_lease
        WHERE group_id = v_group_id ORDER BY hi DESC LIMIT 1;
    masks := p_masks;
    FOR i IN 1 .. cardinality(p_claims) LOOP
        v_mask := p_masks[i]::varbit;
        v_open := v_mask & ~v_mask;
        SELECT * INTO v_lease FROM tidings_stream_lease_of(v_group_id, p_claims[i], p_bases[i]);
        IF FOUND THEN
            v_open := tidings_stream_open_bits(v_lease, p_bases[i], v_mask);
            v_lease.settled := v_lease.settled | substring(
                repeat('0', (p_bases[i] - v_lease.lo)::integer)::varbit || v_open
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
        v_mask := p_acks[i]::varbit & ~v_open;
        IF position(B'1' IN v_mask) > 0 THEN
            FOR v_number IN SELECT * FROM tidings_stream_late(v_group_id, p_claims[i], p_bases[i], v_mask)
            LOOP
                DELETE FROM tidings_stream_retry WHERE group_id = v_group_id AND number = v_number;
                v_open := set_bit(v_open, (v_number - p_bases[i])::integer, 1);
            END LOOP;
        END IF;
        masks[i] := v_open::text;
    END LOOP;

    FOR i IN 1 .. cardinality(p_numbers) LOOP
        v_found := false;
        IF p_runs[i] > 0 THEN
            v_found := substr(
                masks[p_runs[i]], (p_numbers[i] - p_bases[p_runs[i]])::integer + 1, 1) = '1';
        END IF;
        IF v_found THEN
            IF p_kinds[i] IN (1, 2) THEN
                INSERT INTO tidings_stream_retry VALUES (
                    v_group_id, p_numbers[i], v_now + p_delays[i], v_now,
                    CASE p_kinds[i] WHEN 1 THEN 1 ELSE 0 END, NULL, NULL, p_errors[i]);
            END IF;
        ELSIF p_kinds[i] = 1 THEN
            UPDATE tidings_stream_retry
                SET due = v_now + p_delays[i], since = v_now, claim = NULL, consumer = NULL,
                    last_error = p_errors[i]
                WHERE group_id = v_group_id AND number = p_numbers[i] AND claim = p_item_claims[i];
            v_found := FOUND;
        ELSIF p_kinds[i] = 2 THEN
            UPDATE tidings_stream_retry
                SET due = v_now, since = v_now, claim = NULL, consumer = NULL, attempts = attempts - 1
                WHERE group_id = v_group_id AND number = p_numbers[i] AND claim = p_item_claims[i];
            v_found := FOUND;
        ELSE
            DELETE FROM tidings_stream_retry
                WHERE group_id = v_group_id AND number = p_numbers[i] AND claim = p_item_claims[i]
                RETURNING ordering_key INTO v_key;
            v_found := FOUND;
            IF v_key IS NOT NULL THEN
                v_keys := v_keys || v_key;
            END IF;
        END IF;
        obeyed[i] := v_found;
        IF v_found AND p_kinds[i] = 3 THEN
            v_dying := v_dying || i;
        ELSIF v_found AND p_kinds[i] = 4 THEN
            v_lost := v_lost + 1;
        END IF;
    END LOOP;

    IF 1 = ANY (p_kinds) OR 2 = ANY (p_kinds) THEN
        PERFORM tidings_stream_lower_floor(v_group_id, v_now);
    END IF;
    has_freed := v_keys IS NOT NULL AND tidings_stream_free_keys(v_group_id, v_keys, v_now);

    -- The copies are made by the transaction that ends the claims. Streams are locked in one order,
    -- which is that of the outbox.
    IF v_dying IS NOT NULL THEN
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
                    WHERE stream_id = v_stream_id AND number = p_numbers[v_item]
                        AND headers IS DISTINCT FROM ''
                    RETURNING bytes INTO v_number;
                IF FOUND THEN
                    v_bytes := v_number;
                    v_head := v_head + 1;
                    v_dead := v_dead + 1;
                ELSE
                    v_lost := v_lost + 1;
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
-- whether the receipt was obeyed; no row for a group that does not exist.
CREATE FUNCTION tidings_stream_settle_in(p_stream text, p_group text, p_number bigint, p_claim bigint)
RETURNS SETOF boolean LANGUAGE sql SET lock_timeout = '10s' SET synchronous_commit = 'off' AS $$
    SELECT CASE p_claim % 2 WHEN 0 THEN masks[1] = '1' ELSE obeyed[1] END
    FROM tidings_stream_settle(p_stream, p_group,
        CASE p_claim % 2 WHEN 0 THEN ARRAY[p_claim] ELSE '{}' END, ARRAY[p_number], ARRAY['1'], ARRAY['1'],
        CASE p_claim % 2 WHEN 0 THEN '{}' ELSE ARRAY[p_number] END, ARRAY[p_claim], ARRAY[0], ARRAY[0],
        ARRAY[0::bigint], ARRAY[NULL::bytea], ARRAY[NULL::text], ARRAY[NULL::bytea])
$$;

-- Lets claims last for p_visibility from now, at least. All messages of a lease share its deadline.
CREATE FUNCTION tidings_stream_extend(
    p_stream text, p_group text,
    p_claims bigint[], p_bases bigint[], p_masks text[],
    p_numbers bigint[], p_item_claims bigint[], p_visibility bigint
) RETURNS TABLE (masks text[], obeyed boolean[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_group_id bigint;
    v_deadline bigint;
    v_lease tidings_stream_lease;
    v_mask varbit;
    v_open varbit;
    v_number bigint;
BEGIN
    PERFORM tidings_stream_begin(false);
    SELECT g.group_id INTO v_group_id
        FROM tidings_stream s JOIN tidings_stream_group g USING (stream_id)
        WHERE s.name = p_stream AND g.name = p_group FOR NO KEY UPDATE OF g;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_deadline := tidings_stream_now() + p_visibility;
    masks := p_masks;
    FOR i IN 1 .. cardinality(p_claims) LOOP
        v_mask := p_masks[i]::varbit;
        v_open := v_mask & ~v_mask;
        SELECT * INTO v_lease FROM tidings_stream_lease_of(v_group_id, p_claims[i], p_bases[i]);
        IF FOUND THEN
            v_open := tidings_stream_open_bits(v_lease, p_bases[i], v_mask);
            IF v_lease.deadline < v_deadline AND position(B'1' IN v_open) > 0 THEN
                UPDATE tidings_stream_lease SET deadline = v_deadline
                    WHERE group_id = v_group_id AND hi = v_lease.hi;
            END IF;
        END IF;
        v_mask := v_mask & ~v_open;
        IF position(B'1' IN v_mask) > 0 THEN
            FOR v_number IN SELECT * FROM tidings_stream_late(v_group_id, p_claims[i], p_bases[i], v_mask)
            LOOP
                UPDATE tidings_stream_retry SET due = greatest(due, v_deadline)
                    WHERE group_id = v_group_id AND number = v_number;
                v_open := set_bit(v_open, (v_number - p_bases[i])::integer, 1);
            END LOOP;
        END IF;
        masks[i] := v_open::text;
    END LOOP;
    FOR i IN 1 .. cardinality(p_numbers) LOOP
        UPDATE tidings_stream_retry SET due = greatest(due, v_deadline)
            WHERE group_id = v_group_id AND number = p_numbers[i] AND claim = p_item_claims[i];
        obeyed[i] := FOUND;
    END LOOP;
    RETURN NEXT;
END $$;
