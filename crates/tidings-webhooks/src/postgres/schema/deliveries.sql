CREATE FUNCTION tidings_webhook_cancel(
    c_endpoint bigint, c_because text, c_at bigint, c_limit bigint
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    chosen bigint[];
    cancelled bigint;
BEGIN
    PERFORM tidings_webhook_relaxed();
    IF tidings_webhook_is_enabled(c_endpoint) THEN
        RETURN 0;
    END IF;
    DELETE FROM tidings_webhook_replay WHERE endpoint = c_endpoint;
    chosen := ARRAY(SELECT delivery FROM tidings_webhook_delivery
        WHERE endpoint = c_endpoint AND state = 0 ORDER BY due_at, delivery LIMIT c_limit);
    PERFORM 1 FROM tidings_webhook_delivery
    WHERE delivery = ANY (chosen) ORDER BY delivery FOR UPDATE;
    UPDATE tidings_webhook_delivery
    SET state = 3, due_at = NULL, finished_at = c_at, reason = c_because
    WHERE delivery = ANY (chosen) AND state = 0;
    GET DIAGNOSTICS cancelled = ROW_COUNT;
    RETURN cancelled;
END $$;

CREATE FUNCTION tidings_webhook_retry(r_delivery bigint, r_now bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_endpoint bigint;
BEGIN
    UPDATE tidings_webhook_delivery
    SET state = 0, tries = 0, due_at = r_now, finished_at = NULL, reason = NULL
    WHERE delivery = r_delivery AND tidings_webhook_is_enabled(endpoint)
    RETURNING endpoint INTO found_endpoint;
    IF found_endpoint IS NOT NULL THEN
        PERFORM tidings_webhook_add_work(ARRAY[found_endpoint], ARRAY[r_now]);
        -- The caller wants an attempt now, whatever blocks the lane.
        PERFORM tidings_webhook_unblock(found_endpoint, r_now);
    END IF;
    RETURN found_endpoint;
END $$;
