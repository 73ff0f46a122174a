-- Returns the delivery of each address; NULL for one that was there, or whose event was.
CREATE FUNCTION tidings_webhook_add(
    e_ids text[], e_users text[], e_types text[], e_timestamps bigint[], e_payloads text[],
    e_has_delivery boolean[],
    d_events integer[], d_endpoints bigint[], d_dues bigint[],
    a_at bigint
) RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    new_events bigint[];
    added_endpoints bigint[];
    added_dues bigint[];
    made bigint[];
BEGIN
    -- Numbers follow the order in which the events were given, locks that of their ids.
    WITH added AS (
        INSERT INTO tidings_webhook_event
            (event, id, user_id, type, timestamp, payload, accepted_at, has_delivery)
        SELECT new.event, new.id, new.user_id, new.type, new.timestamp, new.payload, a_at,
            new.has_delivery
        FROM (
            SELECT nextval('tidings_webhook_event_event_seq') AS event, given.*
            FROM (
                SELECT * FROM unnest(
                        e_ids, e_users, e_types, e_timestamps, e_payloads, e_has_delivery)
                    WITH ORDINALITY
                    AS given (id, user_id, type, timestamp, payload, has_delivery, n)
                ORDER BY n OFFSET 0
            ) AS given OFFSET 0
        ) AS new
        ORDER BY new.id COLLATE "C"
        ON CONFLICT (id) DO NOTHING
        RETURNING event
    )
    SELECT array_agg(event) INTO new_events FROM added;

    -- Events that were kept for disabled endpoints, and that an endpoint gets now.
    IF coalesce(cardinality(new_events), 0) < cardinality(e_ids) THEN
        PERFORM 1 FROM tidings_webhook_event AS stored
        JOIN unnest(e_ids, e_has_delivery) AS given (id, has_delivery) ON given.id = stored.id
        WHERE given.has_delivery AND NOT stored.has_delivery
        ORDER BY stored.event FOR UPDATE OF stored;
        IF FOUND THEN
            UPDATE tidings_webhook_event AS stored SET has_delivery = true
            FROM unnest(e_ids, e_has_delivery) AS given (id, has_delivery)
            WHERE given.id = stored.id AND given.has_delivery AND NOT stored.has_delivery;
        END IF;
    END IF;

    WITH new AS MATERIALIZED (
        SELECT nextval('tidings_webhook_delivery_delivery_seq') AS delivery, given.*
        FROM (
            SELECT stored.event, wanted.endpoint, wanted.due, wanted.n
            FROM unnest(d_events, d_endpoints, d_dues) WITH ORDINALITY
                AS wanted (event, endpoint, due, n)
            JOIN tidings_webhook_event AS stored ON stored.id = e_ids[wanted.event]
            ORDER BY wanted.n OFFSET 0
        ) AS given
    ), added AS (
        INSERT INTO tidings_webhook_delivery (delivery, event, endpoint, state, due_at, created_at)
        SELECT new.delivery, new.event, new.endpoint, 0, new.due, a_at
        FROM new ORDER BY new.event, new.endpoint
        ON CONFLICT (event, endpoint) DO NOTHING
        RETURNING delivery, event, endpoint, due_at
    )
    SELECT array_agg(added.endpoint) FILTER (WHERE added.delivery IS NOT NULL),
        array_agg(added.due_at) FILTER (WHERE added.delivery IS NOT NULL),
        array_agg(CASE WHEN fresh.event IS NOT NULL THEN added.delivery END ORDER BY new.n)
    INTO added_endpoints, added_dues, made
    FROM new LEFT JOIN added USING (delivery)
    LEFT JOIN unnest(new_events) AS fresh (event) ON fresh.event = new.event;
    IF added_endpoints IS NOT NULL THEN
        PERFORM tidings_webhook_add_work(added_endpoints, added_dues);
    END IF;
    RETURN coalesce(made, '{}');
END $$;

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
