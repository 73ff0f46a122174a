CREATE FUNCTION tidings_webhook_defer(
    d_ids text[], d_users text[], d_newest_endpoints bigint[], d_events text[]
) RETURNS void LANGUAGE sql AS $$
    SELECT tidings_webhook_durable();
    -- Numbers follow the order in which the events were given, locks that of their ids.
    INSERT INTO tidings_webhook_deferred (number, id, user_id, newest_endpoint, event)
    SELECT new.number, new.id, new.user_id, new.newest_endpoint, new.event
    FROM (
        SELECT nextval('tidings_webhook_deferred_number_seq') AS number, given.*
        FROM (
            SELECT * FROM unnest(d_ids, d_users, d_newest_endpoints, d_events)
                WITH ORDINALITY AS given (id, user_id, newest_endpoint, event, n)
            ORDER BY n OFFSET 0
        ) AS given OFFSET 0
    ) AS new
    ORDER BY new.id COLLATE "C"
    ON CONFLICT (id) DO NOTHING;
$$;

-- All of them or none: if another instance has taken some, it makes the deliveries of those, and the
-- rest comes after. Returns how many deliveries were added; NULL if nothing changed.
CREATE FUNCTION tidings_webhook_add_deferred_counted(
    a_numbers bigint[],
    e_ids text[], e_users text[], e_types text[], e_timestamps bigint[], e_payloads text[],
    e_has_delivery boolean[],
    d_events integer[], d_endpoints bigint[], d_dues bigint[],
    a_at bigint
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    locked bigint[];
BEGIN
    PERFORM tidings_webhook_relaxed();
    locked := ARRAY(SELECT number FROM tidings_webhook_deferred
        WHERE number = ANY (a_numbers) ORDER BY number FOR UPDATE);
    IF cardinality(locked) < cardinality(a_numbers) THEN
        RETURN NULL;
    END IF;
    DELETE FROM tidings_webhook_deferred WHERE number = ANY (a_numbers);
    RETURN (SELECT counted.added FROM tidings_webhook_add_counted(e_ids, e_users, e_types, e_timestamps,
        e_payloads, e_has_delivery, d_events, d_endpoints, d_dues, a_at) AS counted);
END $$;
