-- How many deliveries were added, for those who count them. What instances of an earlier version call stays beside it.

-- Events and addresses as for tidings_webhook_add. What that does not name was there, or its event was: those that
-- have been added now are the rows of this transaction.
CREATE FUNCTION tidings_webhook_add_counted(
    e_ids text[], e_users text[], e_types text[], e_timestamps bigint[], e_payloads text[],
    e_has_delivery boolean[],
    d_events integer[], d_endpoints bigint[], d_dues bigint[],
    a_at bigint, OUT made bigint[], OUT added bigint
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    made := tidings_webhook_add(e_ids, e_users, e_types, e_timestamps, e_payloads, e_has_delivery,
        d_events, d_endpoints, d_dues, a_at);
    added := cardinality(made);
    IF array_position(made, NULL) IS NOT NULL THEN
        SELECT count(DISTINCT delivery.delivery) INTO added
        FROM unnest(d_events, d_endpoints) AS wanted (event, endpoint)
        JOIN tidings_webhook_event AS stored ON stored.id = e_ids[wanted.event]
        JOIN tidings_webhook_delivery AS delivery
            ON delivery.event = stored.event AND delivery.endpoint = wanted.endpoint
        WHERE delivery.xmin = pg_current_xact_id()::xid;
    END IF;
END $$;

-- How many deliveries were added; NULL if not all of the events were deferred any more, and nothing changed.
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
