-- Cleaning and what makes deliveries of stored events at the same time take turns: both lock events before deliveries.

-- Events that another transaction has locked, and their deliveries, are left to the next time.
CREATE FUNCTION tidings_webhook_clean(c_cutoff bigint, c_limit bigint)
RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    old bigint[];
    old_events bigint[];
    bare bigint[];
    free bigint[];
    gone bigint[];
    total bigint;
    part bigint;
BEGIN
    PERFORM tidings_webhook_relaxed();
    SELECT array_agg(delivery), array_agg(event) INTO old, old_events FROM (
        SELECT delivery, event FROM tidings_webhook_delivery
        WHERE finished_at < c_cutoff ORDER BY finished_at LIMIT c_limit
    ) AS chosen;
    bare := ARRAY(SELECT event FROM tidings_webhook_event
        WHERE NOT has_delivery AND accepted_at < c_cutoff ORDER BY accepted_at LIMIT c_limit);
    free := ARRAY(SELECT event FROM tidings_webhook_event
        WHERE event = ANY (old_events || bare) ORDER BY event FOR UPDATE SKIP LOCKED);
    old := ARRAY(SELECT delivery FROM tidings_webhook_delivery AS stored
        WHERE delivery = ANY (old) AND finished_at < c_cutoff
            AND (event IN (SELECT unnest(free))
                -- Nor does one stay that has lost its event.
                OR NOT EXISTS (SELECT FROM tidings_webhook_event AS kept WHERE kept.event = stored.event))
        ORDER BY delivery FOR UPDATE SKIP LOCKED);
    total := cardinality(old);
    DELETE FROM tidings_webhook_attempt WHERE delivery = ANY (old);
    DELETE FROM tidings_webhook_delivery WHERE delivery = ANY (old);
    -- What has got a delivery since it was chosen stays.
    DELETE FROM tidings_webhook_event
        WHERE NOT has_delivery AND event = ANY (bare) AND event IN (SELECT unnest(free));
    GET DIAGNOSTICS part = ROW_COUNT;
    total := total + part;
    DELETE FROM tidings_webhook_event AS stored WHERE has_delivery AND event = ANY (free)
        AND NOT EXISTS (SELECT 1 FROM tidings_webhook_delivery AS left_over
            WHERE left_over.event = stored.event);
    gone := ARRAY(SELECT endpoint FROM tidings_webhook_endpoint AS stored
        WHERE removed AND NOT EXISTS (SELECT 1 FROM tidings_webhook_delivery AS left_over
            WHERE left_over.endpoint = stored.endpoint)
        LIMIT c_limit);
    DELETE FROM tidings_webhook_health WHERE endpoint = ANY (gone);
    DELETE FROM tidings_webhook_replay WHERE endpoint = ANY (gone);
    DELETE FROM tidings_webhook_endpoint WHERE endpoint = ANY (gone);
    RETURN total + cardinality(gone);
END $$;
