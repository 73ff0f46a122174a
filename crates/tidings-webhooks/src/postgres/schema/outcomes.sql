-- The outcomes of one round are of different deliveries; later rounds come after it. Outcomes that are recorded again change
-- nothing. A delivery that was begun again while an attempt of it was under way stays begun, unless that attempt delivered
-- it; and one that was cancelled meanwhile is delivered, if it arrived all the same.
CREATE FUNCTION tidings_webhook_record(
    o_rounds integer[], o_deliveries bigint[], o_endpoints bigint[], o_were_due bigint[],
    o_states smallint[], o_dues bigint[], o_reasons text[], o_numbers integer[], o_started bigint[],
    o_durations bigint[], o_statuses integer[], o_errors text[], o_responses text[],
    t_endpoints bigint[], t_succeeded integer[], t_failed integer[], t_failing boolean[],
    r_now bigint, r_at bigint
) RETURNS TABLE (failed_endpoint bigint, since bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    this_round integer;
    due_endpoints bigint[];
    due_times bigint[];
BEGIN
    PERFORM tidings_webhook_relaxed();
    PERFORM 1 FROM tidings_webhook_delivery
    WHERE delivery = ANY (o_deliveries) ORDER BY delivery FOR UPDATE;

    -- The reply to an earlier call with these outcomes was lost: it has recorded all of them, so also the first
    -- attempt of a delivery that exists.
    IF EXISTS (
        SELECT 1 FROM (
            SELECT new.delivery, new.started, new.duration
            FROM unnest(o_deliveries, o_numbers, o_started, o_durations)
                AS new (delivery, number, started, duration)
            JOIN tidings_webhook_delivery AS stored USING (delivery)
            WHERE new.number > 0 LIMIT 1
        ) AS first
        JOIN tidings_webhook_attempt AS made USING (delivery)
        WHERE made.started_at = first.started AND made.duration = first.duration
    ) THEN
        RETURN QUERY SELECT endpoint, failing_since FROM tidings_webhook_health
        WHERE endpoint = ANY (t_endpoints) ORDER BY endpoint;
        RETURN;
    END IF;

    FOR this_round IN SELECT DISTINCT unnest(o_rounds) ORDER BY 1 LOOP
        UPDATE tidings_webhook_delivery AS stored SET
            attempts = greatest(stored.attempts, new.number),
            tries = stored.tries + (new.number > 0)::integer,
            due_at = CASE WHEN new.state = 0 THEN new.due END,
            state = new.state,
            finished_at = CASE WHEN new.state > 0 THEN r_at END,
            reason = new.reason
        FROM unnest(o_rounds, o_deliveries, o_were_due, o_states, o_dues, o_reasons, o_numbers)
            AS new (round, delivery, was_due, state, due, reason, number)
        WHERE new.round = this_round AND stored.delivery = new.delivery
            AND (stored.state = 0 AND stored.due_at = new.was_due OR new.state = 1 AND stored.state <> 1);

        -- An attempt whose number another instance has used comes after those that there are.
        WITH kept AS (
            INSERT INTO tidings_webhook_attempt
                (delivery, number, started_at, duration, status, error, response)
            SELECT new.delivery,
                CASE WHEN EXISTS (SELECT 1 FROM tidings_webhook_attempt AS made
                        WHERE made.delivery = new.delivery AND made.number = new.number)
                    THEN (SELECT max(made.number) + 1 FROM tidings_webhook_attempt AS made
                        WHERE made.delivery = new.delivery)
                    ELSE new.number END,
                new.started, new.duration, new.status, new.error, new.response
            FROM unnest(o_rounds, o_deliveries, o_numbers, o_started, o_durations, o_statuses,
                    o_errors, o_responses)
                AS new (round, delivery, number, started, duration, status, error, response)
            WHERE new.round = this_round AND new.number > 0 AND EXISTS (
                SELECT 1 FROM tidings_webhook_delivery AS stored
                WHERE stored.delivery = new.delivery)
            RETURNING delivery, number
        )
        UPDATE tidings_webhook_delivery AS stored SET attempts = kept.number
        FROM kept WHERE stored.delivery = kept.delivery AND stored.attempts < kept.number;
    END LOOP;

    SELECT array_agg(endpoint), array_agg(due) INTO due_endpoints, due_times
    FROM unnest(o_endpoints, o_states, o_dues) AS new (endpoint, state, due) WHERE new.state = 0;
    IF due_endpoints IS NOT NULL THEN
        PERFORM tidings_webhook_add_work(due_endpoints, due_times);
    END IF;

    RETURN QUERY
    INSERT INTO tidings_webhook_health AS health
        (endpoint, last_success_at, last_failure_at, failing_since, hour, succeeded, failed,
         succeeded_before, failed_before)
    SELECT tally.endpoint,
        CASE WHEN tally.succeeded > 0 THEN r_at END,
        CASE WHEN tally.failed > 0 THEN r_at END,
        CASE WHEN tally.failing THEN r_now END,
        r_at / 3600000000, tally.succeeded, tally.failed, 0, 0
    FROM unnest(t_endpoints, t_succeeded, t_failed, t_failing)
        AS tally (endpoint, succeeded, failed, failing)
    ORDER BY tally.endpoint
    ON CONFLICT (endpoint) DO UPDATE SET
        last_success_at = coalesce(excluded.last_success_at, health.last_success_at),
        last_failure_at = coalesce(excluded.last_failure_at, health.last_failure_at),
        failing_since = CASE WHEN excluded.failing_since IS NULL THEN NULL
            WHEN excluded.succeeded = 0
                THEN coalesce(health.failing_since, excluded.failing_since)
            ELSE excluded.failing_since END,
        succeeded_before = CASE WHEN health.hour = excluded.hour
            THEN health.succeeded_before ELSE health.succeeded END,
        failed_before = CASE WHEN health.hour = excluded.hour
            THEN health.failed_before ELSE health.failed END,
        succeeded = excluded.succeeded
            + CASE WHEN health.hour = excluded.hour THEN health.succeeded ELSE 0 END,
        failed = excluded.failed
            + CASE WHEN health.hour = excluded.hour THEN health.failed ELSE 0 END,
        hour = excluded.hour
    RETURNING health.endpoint, health.failing_since;
END $$;
