-- The circuit of a lane outlasts its lease, so that the next instance sends one probe. What instances of an earlier version
-- call stays beside it.

-- For how long the circuit opens next, in microseconds; 0 if it is closed.
ALTER TABLE tidings_webhook_lane ADD COLUMN next_open_for bigint NOT NULL DEFAULT 0;

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
CREATE OR REPLACE FUNCTION tidings_webhook_renew(r_owner text, r_until bigint)
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

-- An instance of an earlier version does not say how the circuit is: the next one finds out.
CREATE OR REPLACE FUNCTION tidings_webhook_release(
    r_owner text, r_endpoints bigint[], r_blocked bigint[]
) RETURNS bigint LANGUAGE sql AS $$
    SELECT tidings_webhook_release(r_owner, r_endpoints, r_blocked,
        array_fill(0::bigint, ARRAY[cardinality(r_endpoints)]));
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

CREATE OR REPLACE FUNCTION tidings_webhook_retry(r_delivery bigint, r_now bigint)
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

CREATE OR REPLACE FUNCTION tidings_webhook_replace_endpoint(
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
    -- A replay is locked before its lane, as its steps do it.
    IF n_disabled_because IS NOT NULL OR n_removed THEN
        PERFORM tidings_webhook_stop_replay(n_endpoint);
    END IF;
    -- Whatever blocks it: its deliveries are to be cancelled, or may succeed now.
    PERFORM tidings_webhook_unblock(n_endpoint, n_now);
    IF n_disabled_because IS NULL AND NOT n_removed THEN
        -- What it failed for may be mended: the time in which it has to succeed begins anew.
        UPDATE tidings_webhook_health SET failing_since = NULL WHERE endpoint = n_endpoint;
    END IF;
    RETURN true;
END $$;
