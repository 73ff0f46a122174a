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
