-- Every change is one call of a function, so that it is one short transaction. Rows are locked in
-- this order, and several of a table by their keys: endpoints, events, deliveries, lanes, health.
-- What a crash of the server may undo does not wait for the disk.

CREATE FUNCTION tidings_webhook_relaxed() RETURNS void LANGUAGE sql AS $$
    SELECT set_config('synchronous_commit', 'off', true);
$$;

-- What the fan-out has made waits for the disk, even where commits usually do not: afterwards the message is
-- acknowledged, by a client that outlives a crash of the server.
CREATE FUNCTION tidings_webhook_durable() RETURNS void LANGUAGE sql AS $$
    SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off';
$$;

-- Notes that endpoints have something to do. It locks each lane even where nothing changes, so that
-- an instance that gives the lane back at the same time sees the work.
CREATE FUNCTION tidings_webhook_add_work(w_endpoints bigint[], w_dues bigint[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO tidings_webhook_lane AS lane (endpoint, next_due, free_at)
    SELECT work.endpoint, min(work.due), min(work.due)
    FROM unnest(w_endpoints, w_dues) AS work (endpoint, due)
    GROUP BY work.endpoint ORDER BY work.endpoint
    ON CONFLICT (endpoint) DO UPDATE SET
        next_due = excluded.next_due,
        free_at = CASE WHEN lane.owner IS NULL
            THEN greatest(excluded.next_due, lane.blocked_until) ELSE lane.free_at END
    WHERE excluded.next_due < lane.next_due;
$$;

CREATE FUNCTION tidings_webhook_add(
    e_ids text[], e_users text[], e_types text[], e_timestamps bigint[], e_payloads text[],
    e_has_delivery boolean[],
    d_events integer[], d_endpoints bigint[], d_dues bigint[],
    a_at bigint
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    added_endpoints bigint[];
    added_dues bigint[];
BEGIN
    -- Numbers follow the order in which the events were given, locks that of their ids.
    INSERT INTO tidings_webhook_event
        (event, id, user_id, type, timestamp, payload, accepted_at, has_delivery)
    SELECT new.event, new.id, new.user_id, new.type, new.timestamp, new.payload, a_at,
        new.has_delivery
    FROM (
        SELECT nextval('tidings_webhook_event_event_seq') AS event, given.*
        FROM (
            SELECT * FROM unnest(e_ids, e_users, e_types, e_timestamps, e_payloads, e_has_delivery)
                WITH ORDINALITY
                AS given (id, user_id, type, timestamp, payload, has_delivery, n)
            ORDER BY n OFFSET 0
        ) AS given OFFSET 0
    ) AS new
    ORDER BY new.id COLLATE "C"
    ON CONFLICT (id) DO NOTHING;

    -- Events that were kept for disabled endpoints, and that an endpoint gets now.
    PERFORM 1 FROM tidings_webhook_event AS stored
    JOIN unnest(e_ids, e_has_delivery) AS given (id, has_delivery) ON given.id = stored.id
    WHERE given.has_delivery AND NOT stored.has_delivery
    ORDER BY stored.event FOR UPDATE OF stored;
    IF FOUND THEN
        UPDATE tidings_webhook_event AS stored SET has_delivery = true
        FROM unnest(e_ids, e_has_delivery) AS given (id, has_delivery)
        WHERE given.id = stored.id AND given.has_delivery AND NOT stored.has_delivery;
    END IF;

    WITH added AS (
        INSERT INTO tidings_webhook_delivery (delivery, event, endpoint, state, due_at, created_at)
        SELECT new.delivery, new.event, new.endpoint, 0, new.due, a_at
        FROM (
            SELECT nextval('tidings_webhook_delivery_delivery_seq') AS delivery, given.*
            FROM (
                SELECT stored.event, wanted.endpoint, wanted.due
                FROM unnest(d_events, d_endpoints, d_dues) WITH ORDINALITY
                    AS wanted (event, endpoint, due, n)
                JOIN tidings_webhook_event AS stored ON stored.id = e_ids[wanted.event]
                ORDER BY wanted.n OFFSET 0
            ) AS given OFFSET 0
        ) AS new
        ORDER BY new.event, new.endpoint
        ON CONFLICT (event, endpoint) DO NOTHING
        RETURNING endpoint, due_at
    )
    SELECT array_agg(endpoint), array_agg(due_at) INTO added_endpoints, added_dues FROM added;
    IF added_endpoints IS NOT NULL THEN
        PERFORM tidings_webhook_add_work(added_endpoints, added_dues);
    END IF;
END $$;

-- As many endpoints of one owner as are allowed, also when two are made at the same time.
CREATE FUNCTION tidings_webhook_insert_endpoint(
    n_endpoint bigint, n_user text, n_settings text, n_event_types text, n_secrets text,
    n_first_wait bigint, n_disabled_because text, n_revision bigint, n_created_at bigint,
    n_limit bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF n_limit IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(
            concat(current_schema(), ' ', n_user), 6074931807742213));
        IF (SELECT count(*) FROM tidings_webhook_endpoint
            WHERE user_id IS NOT DISTINCT FROM n_user AND NOT removed) >= n_limit
        THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO tidings_webhook_endpoint (endpoint, user_id, settings, event_types, secrets,
        first_wait, disabled_because, revision, created_at)
    VALUES (n_endpoint, n_user, n_settings, n_event_types, n_secrets, n_first_wait,
        n_disabled_because, n_revision, n_created_at);
    RETURN true;
END $$;

CREATE FUNCTION tidings_webhook_replace_endpoint(
    n_endpoint bigint, n_settings text, n_event_types text, n_secrets text, n_first_wait bigint,
    n_disabled_because text, n_removed boolean, n_revision bigint, n_now bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tidings_webhook_endpoint SET
        settings = n_settings, event_types = n_event_types, secrets = n_secrets,
        first_wait = n_first_wait, disabled_because = n_disabled_because, removed = n_removed,
        revision = revision + 1
    WHERE endpoint = n_endpoint AND revision = n_revision AND NOT removed;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Whatever blocks it: its deliveries are to be cancelled, or may succeed now.
    UPDATE tidings_webhook_lane SET
        next_due = least(next_due, n_now), blocked_until = 0,
        was_unblocked = owner IS NOT NULL,
        free_at = CASE WHEN owner IS NULL THEN least(next_due, n_now) ELSE free_at END
    WHERE endpoint = n_endpoint;
    IF n_disabled_because IS NULL AND NOT n_removed THEN
        -- What it failed for may be mended: the time in which it has to succeed begins anew.
        UPDATE tidings_webhook_health SET failing_since = NULL WHERE endpoint = n_endpoint;
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION tidings_webhook_lease(l_owner text, l_now bigint, l_until bigint, l_limit bigint)
RETURNS SETOF bigint LANGUAGE sql AS $$
    SELECT tidings_webhook_relaxed();
    WITH due AS MATERIALIZED (
        SELECT endpoint FROM tidings_webhook_lane WHERE free_at <= l_now
        ORDER BY free_at LIMIT l_limit FOR UPDATE SKIP LOCKED
    )
    UPDATE tidings_webhook_lane AS lane
    SET owner = l_owner, free_at = l_until, was_unblocked = false
    FROM due WHERE lane.endpoint = due.endpoint
    RETURNING lane.endpoint;
$$;

CREATE FUNCTION tidings_webhook_renew(r_owner text, r_until bigint)
RETURNS TABLE (endpoint bigint, revision bigint) LANGUAGE sql AS $$
    SELECT tidings_webhook_relaxed();
    WITH mine AS MATERIALIZED (
        SELECT lane.endpoint FROM tidings_webhook_lane AS lane WHERE lane.owner = r_owner
        ORDER BY lane.endpoint FOR UPDATE
    ), renewed AS (
        UPDATE tidings_webhook_lane AS lane SET free_at = r_until
        FROM mine WHERE lane.endpoint = mine.endpoint
        RETURNING lane.endpoint
    )
    SELECT renewed.endpoint, coalesce(stored.revision, 0)
    FROM renewed LEFT JOIN tidings_webhook_endpoint AS stored USING (endpoint);
$$;

CREATE FUNCTION tidings_webhook_release(
    r_owner text, r_endpoints bigint[], r_blocked bigint[]
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    given record;
    blocked bigint;
    coming bigint;
    earliest bigint;
BEGIN
    PERFORM tidings_webhook_relaxed();
    FOR given IN
        SELECT * FROM unnest(r_endpoints, r_blocked) AS lane (endpoint, blocked) ORDER BY endpoint
    LOOP
        SELECT CASE WHEN was_unblocked THEN 0 ELSE given.blocked END INTO blocked
        FROM tidings_webhook_lane
        WHERE endpoint = given.endpoint AND owner = r_owner FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        -- After the lock: work that was added before is committed, and later work waits.
        coming := least(
            (SELECT min(due_at) FROM tidings_webhook_delivery
                WHERE endpoint = given.endpoint AND state = 0),
            (SELECT resume_at FROM tidings_webhook_replay WHERE endpoint = given.endpoint));
        IF coming IS NULL THEN
            DELETE FROM tidings_webhook_lane WHERE endpoint = given.endpoint;
        ELSE
            UPDATE tidings_webhook_lane SET owner = NULL, next_due = coming,
                blocked_until = blocked, free_at = greatest(coming, blocked)
            WHERE endpoint = given.endpoint;
            earliest := least(earliest, greatest(coming, blocked));
        END IF;
    END LOOP;
    RETURN earliest;
END $$;

-- The outcomes of one round are of different deliveries; later rounds come after it.
CREATE FUNCTION tidings_webhook_record(
    o_rounds integer[], o_deliveries bigint[], o_endpoints bigint[], o_states smallint[],
    o_dues bigint[], o_reasons text[], o_numbers integer[], o_started bigint[],
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
    FOR this_round IN SELECT DISTINCT unnest(o_rounds) ORDER BY 1 LOOP
        UPDATE tidings_webhook_delivery AS stored SET
            attempts = greatest(stored.attempts, new.number),
            tries = stored.tries + (new.number > 0)::integer,
            due_at = CASE WHEN new.state = 0 THEN new.due END,
            state = new.state,
            finished_at = CASE WHEN new.state > 0 THEN r_at END,
            reason = new.reason
        FROM unnest(o_rounds, o_deliveries, o_states, o_dues, o_reasons, o_numbers)
            AS new (round, delivery, state, due, reason, number)
        WHERE new.round = this_round AND stored.delivery = new.delivery AND stored.state = 0;

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

CREATE FUNCTION tidings_webhook_is_enabled(i_endpoint bigint) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM tidings_webhook_endpoint
        WHERE endpoint = i_endpoint AND NOT removed AND disabled_because IS NULL);
$$;

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
        UPDATE tidings_webhook_lane SET
            blocked_until = 0, was_unblocked = owner IS NOT NULL,
            free_at = CASE WHEN owner IS NULL THEN least(next_due, r_now) ELSE free_at END
        WHERE endpoint = found_endpoint;
    END IF;
    RETURN found_endpoint;
END $$;

CREATE FUNCTION tidings_webhook_start_replay(
    s_endpoint bigint, s_since bigint, s_until bigint, s_per_second integer, s_now bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    first_event bigint;
    last_event bigint;
BEGIN
    IF NOT tidings_webhook_is_enabled(s_endpoint) THEN
        RETURN false;
    END IF;
    -- Numbers rise with the time of acceptance, except where a wall clock was set back.
    SELECT event INTO first_event FROM tidings_webhook_event
    WHERE accepted_at >= s_since ORDER BY accepted_at, event LIMIT 1;
    SELECT event INTO last_event FROM tidings_webhook_event
    WHERE accepted_at < s_until ORDER BY accepted_at DESC, event DESC LIMIT 1;
    IF first_event IS NULL OR last_event IS NULL THEN
        RETURN true;
    END IF;
    INSERT INTO tidings_webhook_replay (endpoint, position, last, per_second, resume_at)
    VALUES (s_endpoint, first_event - 1, last_event, s_per_second, s_now)
    ON CONFLICT (endpoint) DO UPDATE SET position = excluded.position, last = excluded.last,
        per_second = excluded.per_second, resume_at = excluded.resume_at;
    PERFORM tidings_webhook_add_work(ARRAY[s_endpoint], ARRAY[s_now]);
    RETURN true;
END $$;

CREATE FUNCTION tidings_webhook_replay_step(
    s_endpoint bigint, s_from bigint, s_events bigint[], s_dues bigint[], s_position bigint,
    s_resume_at bigint, s_at bigint
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM tidings_webhook_relaxed();
    IF s_position IS NULL THEN
        DELETE FROM tidings_webhook_replay WHERE endpoint = s_endpoint AND position = s_from;
    ELSE
        UPDATE tidings_webhook_replay SET position = s_position, resume_at = s_resume_at
        WHERE endpoint = s_endpoint AND position = s_from;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE tidings_webhook_event SET has_delivery = true
    WHERE event = ANY (s_events) AND NOT has_delivery;
    INSERT INTO tidings_webhook_delivery AS stored (event, endpoint, state, due_at, created_at)
    SELECT event, s_endpoint, 0, due, s_at
    FROM unnest(s_events, s_dues) AS given (event, due) ORDER BY event
    ON CONFLICT (event, endpoint) DO UPDATE SET
        state = 0, tries = 0, due_at = excluded.due_at, finished_at = NULL, reason = NULL
    WHERE stored.state >= 2;
    PERFORM tidings_webhook_add_work(
        array_fill(s_endpoint, ARRAY[cardinality(times)]), times)
    FROM (SELECT array_remove(s_dues || s_resume_at, NULL) AS times) AS given
    WHERE cardinality(times) > 0;
END $$;

CREATE FUNCTION tidings_webhook_clean(c_cutoff bigint, c_limit bigint)
RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    old bigint[];
    old_events bigint[];
    gone bigint[];
    total bigint;
    part bigint;
BEGIN
    PERFORM tidings_webhook_relaxed();
    SELECT array_agg(delivery), array_agg(event) INTO old, old_events FROM (
        SELECT delivery, event FROM tidings_webhook_delivery
        WHERE finished_at < c_cutoff ORDER BY finished_at LIMIT c_limit
        FOR UPDATE SKIP LOCKED
    ) AS chosen;
    total := coalesce(cardinality(old), 0);
    DELETE FROM tidings_webhook_attempt WHERE delivery = ANY (old);
    DELETE FROM tidings_webhook_delivery WHERE delivery = ANY (old);
    DELETE FROM tidings_webhook_event AS stored WHERE event = ANY (old_events)
        AND NOT EXISTS (SELECT 1 FROM tidings_webhook_delivery AS left_over
            WHERE left_over.event = stored.event);
    DELETE FROM tidings_webhook_event WHERE event = ANY (ARRAY(
        SELECT event FROM tidings_webhook_event
        WHERE NOT has_delivery AND accepted_at < c_cutoff ORDER BY accepted_at LIMIT c_limit));
    GET DIAGNOSTICS part = ROW_COUNT;
    total := total + part;
    gone := ARRAY(SELECT endpoint FROM tidings_webhook_endpoint AS stored
        WHERE removed AND NOT EXISTS (SELECT 1 FROM tidings_webhook_delivery AS left_over
            WHERE left_over.endpoint = stored.endpoint)
        LIMIT c_limit);
    DELETE FROM tidings_webhook_health WHERE endpoint = ANY (gone);
    DELETE FROM tidings_webhook_replay WHERE endpoint = ANY (gone);
    DELETE FROM tidings_webhook_endpoint WHERE endpoint = ANY (gone);
    RETURN total + cardinality(gone);
END $$;
