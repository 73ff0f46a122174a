-- Gives messages of the outbox their numbers: up to p_max, in the order in which they were written, as
-- far as they fit in p_budget bytes. Returns the streams they went to, and how many there were;
-- no row if another session is doing it.
--
-- One at a time, so that the messages of one transaction stay in their order. It is a single
-- statement: they move whole or not at all, whatever becomes of the client.
CREATE FUNCTION tidings_stream_sequence(p_max bigint, p_budget bigint)
RETURNS TABLE (streams text[], messages bigint) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_ids bigint[];
    v_stream tidings_stream;
    v_name text;
    v_payloads bytea[];
    v_headers bytea[];
    v_ends bigint[];
    v_keys text[];
    v_windows bigint[];
    v_head bigint;
BEGIN
    messages := 0;
    -- A call that finds nothing locks and writes nothing.
    PERFORM FROM tidings_stream_outbox ORDER BY outbox_id LIMIT 1;
    IF NOT FOUND THEN
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM tidings_stream_begin(true);
    PERFORM FROM tidings_stream_sequencer WHERE one FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT array_agg(outbox_id ORDER BY outbox_id), count(*) INTO v_ids, messages FROM (
        SELECT outbox_id, sum(size) OVER (
            ORDER BY outbox_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM (SELECT outbox_id, tidings_stream_size(headers, payload) AS size FROM tidings_stream_outbox
            ORDER BY outbox_id LIMIT p_max) AS oldest
    ) AS counted WHERE coalesce(before, 0) < p_budget;
    -- Streams are locked in one order.
    FOR v_name IN
        SELECT DISTINCT stream FROM tidings_stream_outbox WHERE outbox_id = ANY (v_ids) ORDER BY 1
    LOOP
        SELECT array_agg(payload ORDER BY outbox_id), array_agg(headers ORDER BY outbox_id),
                array_agg(ends ORDER BY outbox_id), array_agg(key ORDER BY outbox_id),
                array_agg(key_window ORDER BY outbox_id)
            INTO v_payloads, v_headers, v_ends, v_keys, v_windows
            FROM (SELECT *, sum(tidings_stream_size(headers, payload)) OVER (ORDER BY outbox_id) AS ends
                FROM tidings_stream_outbox WHERE outbox_id = ANY (v_ids) AND stream = v_name) AS own;
        IF array_remove(v_keys, NULL) = '{}' THEN
            v_keys := NULL;
        END IF;
        v_stream := tidings_stream_lock(v_name);
        v_head := (tidings_stream_write(
            v_stream, v_payloads, v_headers, v_ends, v_keys, v_windows)).head;
        PERFORM tidings_stream_trim_locked(v_stream, v_head, 1000, false);
        streams := streams || v_name;
    END LOOP;
    DELETE FROM tidings_stream_outbox WHERE outbox_id = ANY (v_ids);
    RETURN NEXT;
END $$;
