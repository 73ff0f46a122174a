-- What is asked all the time. Within a function a statement is planned once a session, even behind a
-- pooler that keeps no prepared statements, and in the same way for all parameters: these tables change too
-- fast for what the server knows of their contents.

-- The number of the newest endpoint, whether the operator has one, and which of some users have.
CREATE FUNCTION tidings_webhook_interest(
    i_users text[], OUT newest bigint, OUT everyone boolean, OUT users text[]
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    newest := (SELECT max(number) FROM tidings_webhook_endpoint);
    everyone := EXISTS (SELECT FROM tidings_webhook_endpoint WHERE user_id IS NULL AND NOT removed);
    users := ARRAY(SELECT DISTINCT user_id FROM tidings_webhook_endpoint
        WHERE user_id = ANY (i_users) AND NOT removed);
END $$;

-- The endpoints of some users and of the operator, and, in rows without an endpoint, those of the users
-- that have deferred events, NULL for the operator.
CREATE FUNCTION tidings_webhook_audience(a_users text[]) RETURNS TABLE (
    endpoint bigint, owner text, event_types text, first_wait bigint, is_enabled boolean, number bigint
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT stored.endpoint, stored.user_id, stored.event_types, stored.first_wait,
            stored.disabled_because IS NULL, stored.number
        FROM (
            SELECT * FROM tidings_webhook_endpoint WHERE user_id IS NULL AND NOT removed
            UNION ALL
            SELECT * FROM tidings_webhook_endpoint WHERE user_id = ANY (a_users) AND NOT removed
        ) AS stored
        ORDER BY stored.user_id NULLS FIRST, stored.created_at, stored.endpoint;
    RETURN QUERY
        SELECT NULL::bigint, given.user_id, NULL::text, NULL::bigint, NULL::boolean, NULL::bigint
        FROM (SELECT unnest(a_users) UNION ALL SELECT NULL) AS given (user_id)
        WHERE EXISTS (SELECT FROM tidings_webhook_deferred AS deferred
                WHERE deferred.user_id = given.user_id)
            OR given.user_id IS NULL AND EXISTS (SELECT FROM tidings_webhook_deferred AS deferred
                WHERE deferred.user_id IS NULL);
END $$;

-- What is due at an endpoint and not held, in order, up to w_limit deliveries and, after the first one,
-- w_bytes of payload. Each row has the number of all candidates: one more than the limit at most. The last
-- row, without a delivery, has when something later is due, when a replay goes on, and, with a limit of zero,
-- whether something is due.
CREATE FUNCTION tidings_webhook_work(
    w_endpoint bigint, w_now bigint, w_held bigint[], w_limit bigint, w_bytes bigint
) RETURNS TABLE (
    delivery bigint, attempts integer, tries integer, id text, user_id text, type text,
    "timestamp" bigint, payload text, candidates bigint,
    next_due bigint, resume_at bigint, has_due boolean
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    IF w_limit > 0 THEN
        RETURN QUERY
            SELECT due.delivery, due.attempts, due.tries, due.id, due.user_id, due.type,
                due.timestamp, due.payload, due.candidates, NULL::bigint, NULL::bigint, NULL::boolean
            FROM (
                SELECT chosen.*, event.id, event.user_id, event.type, event.timestamp, event.payload,
                    row_number() OVER in_order AS place,
                    count(*) OVER () AS candidates,
                    sum(coalesce(octet_length(event.payload), 0)) OVER in_order
                        - coalesce(octet_length(event.payload), 0) AS bytes_before
                FROM (
                    SELECT stored.delivery, stored.event, stored.attempts, stored.tries, stored.due_at
                    FROM tidings_webhook_delivery AS stored
                    -- A subquery, which is hashed: an array would be searched for each delivery.
                    WHERE stored.endpoint = w_endpoint AND stored.state = 0 AND stored.due_at <= w_now
                        AND stored.delivery NOT IN (SELECT unnest(w_held))
                    ORDER BY stored.due_at, stored.delivery LIMIT w_limit + 1
                ) AS chosen LEFT JOIN tidings_webhook_event AS event USING (event)
                WINDOW in_order AS (ORDER BY chosen.due_at, chosen.delivery)
            ) AS due
            WHERE due.place <= w_limit AND due.bytes_before <= w_bytes ORDER BY due.place;
    END IF;
    next_due := (SELECT min(stored.due_at) FROM tidings_webhook_delivery AS stored
        WHERE stored.endpoint = w_endpoint AND stored.state = 0 AND stored.due_at > w_now);
    resume_at := (SELECT replay.resume_at FROM tidings_webhook_replay AS replay
        WHERE replay.endpoint = w_endpoint);
    has_due := w_limit = 0 AND EXISTS (SELECT FROM tidings_webhook_delivery AS stored
        WHERE stored.endpoint = w_endpoint AND stored.state = 0 AND stored.due_at <= w_now
            AND stored.delivery NOT IN (SELECT unnest(w_held)));
    RETURN NEXT;
END $$;
