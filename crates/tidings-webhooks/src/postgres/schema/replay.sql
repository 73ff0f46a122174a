-- A replay can be stopped, and ends in the moment in which its endpoint is disabled or removed.

CREATE FUNCTION tidings_webhook_stop_replay(s_endpoint bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tidings_webhook_replay WHERE endpoint = s_endpoint;
    RETURN FOUND;
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
        -- It replaces an earlier one all the same.
        PERFORM tidings_webhook_stop_replay(s_endpoint);
        RETURN true;
    END IF;
    INSERT INTO tidings_webhook_replay (endpoint, position, last, per_second, resume_at)
    VALUES (s_endpoint, first_event - 1, last_event, s_per_second, s_now)
    ON CONFLICT (endpoint) DO UPDATE SET position = excluded.position, last = excluded.last,
        per_second = excluded.per_second, resume_at = excluded.resume_at;
    PERFORM tidings_webhook_add_work(ARRAY[s_endpoint], ARRAY[s_now]);
    RETURN true;
END $$;

-- Makes no delivery of an event that was cleaned after the page with it had been read.
CREATE FUNCTION tidings_webhook_replay_step(
    s_endpoint bigint, s_from bigint, s_events bigint[], s_dues bigint[], s_position bigint,
    s_resume_at bigint, s_at bigint
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    there bigint[];
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
    there := ARRAY(SELECT event FROM tidings_webhook_event
        WHERE event = ANY (s_events) ORDER BY event FOR NO KEY UPDATE);
    UPDATE tidings_webhook_event SET has_delivery = true
    WHERE event = ANY (there) AND NOT has_delivery;
    INSERT INTO tidings_webhook_delivery AS stored (event, endpoint, state, due_at, created_at)
    SELECT event, s_endpoint, 0, due, s_at
    FROM unnest(s_events, s_dues) AS given (event, due)
    WHERE event IN (SELECT unnest(there)) ORDER BY event
    ON CONFLICT (event, endpoint) DO UPDATE SET
        state = 0, tries = 0, due_at = excluded.due_at, finished_at = NULL, reason = NULL
    WHERE stored.state >= 2;
    PERFORM tidings_webhook_add_work(
        array_fill(s_endpoint, ARRAY[cardinality(times)]), times)
    FROM (SELECT array_remove(s_dues || s_resume_at, NULL) AS times) AS given
    WHERE cardinality(times) > 0;
END $$;
