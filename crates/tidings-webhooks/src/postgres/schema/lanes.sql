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

-- Ends the block of a lane and closes its circuit, also those that its holder is about to report.
CREATE FUNCTION tidings_webhook_unblock(u_endpoint bigint, u_now bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE tidings_webhook_lane SET
        next_due = least(next_due, u_now), blocked_until = 0, next_open_for = 0,
        was_unblocked = owner IS NOT NULL,
        free_at = CASE WHEN owner IS NULL THEN least(next_due, u_now) ELSE free_at END
    WHERE endpoint = u_endpoint;
$$;

CREATE FUNCTION tidings_webhook_take(t_owner text, t_now bigint, t_until bigint, t_limit bigint)
RETURNS TABLE (endpoint bigint, next_open_for bigint) LANGUAGE sql AS $$
    SELECT tidings_webhook_relaxed();
    WITH due AS MATERIALIZED (
        SELECT lane.endpoint FROM tidings_webhook_lane AS lane WHERE lane.free_at <= t_now
        ORDER BY lane.free_at LIMIT t_limit FOR UPDATE SKIP LOCKED
    )
    UPDATE tidings_webhook_lane AS lane
    SET owner = t_owner, free_at = t_until, was_unblocked = false
    FROM due WHERE lane.endpoint = due.endpoint
    RETURNING lane.endpoint, lane.next_open_for;
$$;

-- Ten minutes after a block its circuit was probed, and is closed if the lane was not given back.
CREATE FUNCTION tidings_webhook_renew(r_owner text, r_until bigint)
RETURNS TABLE (endpoint bigint, revision bigint) LANGUAGE sql AS $$
    SELECT tidings_webhook_relaxed();
    WITH mine AS MATERIALIZED (
        SELECT lane.endpoint FROM tidings_webhook_lane AS lane WHERE lane.owner = r_owner
        ORDER BY lane.endpoint FOR UPDATE
    ), renewed AS (
        UPDATE tidings_webhook_lane AS lane SET free_at = r_until,
            next_open_for = CASE WHEN lane.blocked_until < r_until - 600000000 THEN 0
                ELSE lane.next_open_for END
        FROM mine WHERE lane.endpoint = mine.endpoint
        RETURNING lane.endpoint
    )
    SELECT renewed.endpoint, coalesce(stored.revision, 0)
    FROM renewed LEFT JOIN tidings_webhook_endpoint AS stored USING (endpoint);
$$;

CREATE FUNCTION tidings_webhook_release(
    r_owner text, r_endpoints bigint[], r_blocked bigint[], r_open_for bigint[]
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    given record;
    blocked bigint;
    opens_for bigint;
    coming bigint;
    earliest bigint;
BEGIN
    PERFORM tidings_webhook_relaxed();
    FOR given IN
        SELECT * FROM unnest(r_endpoints, r_blocked, r_open_for) AS lane (endpoint, blocked, open_for)
        ORDER BY endpoint
    LOOP
        SELECT CASE WHEN was_unblocked THEN 0 ELSE given.blocked END,
            CASE WHEN was_unblocked THEN 0 ELSE given.open_for END
        INTO blocked, opens_for
        FROM tidings_webhook_lane
        WHERE endpoint = given.endpoint AND owner = r_owner FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        -- After the lock: work that was added before is committed, and later work waits.
        coming := least(
            (SELECT min(due_at) FROM tidings_webhook_delivery
                WHERE endpoint = given.endpoint AND state = 0),
            (SELECT resume_at FROM tidings_webhook_replay WHERE endpoint = given.endpoint));
        -- A block is kept for what comes, also where nothing is left.
        coming := coalesce(coming, nullif(blocked, 0));
        IF coming IS NULL THEN
            DELETE FROM tidings_webhook_lane WHERE endpoint = given.endpoint;
        ELSE
            UPDATE tidings_webhook_lane SET owner = NULL, next_due = coming,
                blocked_until = blocked, free_at = greatest(coming, blocked), next_open_for = opens_for
            WHERE endpoint = given.endpoint;
            earliest := least(earliest, greatest(coming, blocked));
        END IF;
    END LOOP;
    RETURN earliest;
END $$;

-- When something is due in each of some lanes, by all that is stored, and the revision of the endpoint.
CREATE FUNCTION tidings_webhook_next_due(w_endpoints bigint[]) RETURNS TABLE (
    revision bigint, due bigint
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT
            coalesce((SELECT stored.revision FROM tidings_webhook_endpoint AS stored
                WHERE stored.endpoint = given.endpoint), 0),
            -- The smaller of both, or the one that there is.
            least(
                (SELECT min(pending.due_at) FROM tidings_webhook_delivery AS pending
                    WHERE pending.endpoint = given.endpoint AND pending.state = 0),
                (SELECT replay.resume_at FROM tidings_webhook_replay AS replay
                    WHERE replay.endpoint = given.endpoint))
        FROM unnest(w_endpoints) WITH ORDINALITY AS given (endpoint, n)
        ORDER BY given.n;
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
    next_due bigint, resume_at bigint, has_due boolean, due_at bigint
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    IF w_limit > 0 THEN
        RETURN QUERY
            SELECT due.delivery, due.attempts, due.tries, due.id, due.user_id, due.type,
                due.timestamp, due.payload, due.candidates, NULL::bigint, NULL::bigint, NULL::boolean,
                due.due_at
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
