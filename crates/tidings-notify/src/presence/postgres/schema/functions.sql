CREATE FUNCTION tidings_presence_after(p_millis bigint) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT clock_timestamp() + p_millis * interval '1 millisecond'
$$;

-- Locks the log until the end of the transaction, and begins one if there is none. What follows sees all
-- that was done under the lock before, which needs READ COMMITTED. A wait for the lock ends when the
-- client has long given up.
CREATE FUNCTION tidings_presence_lock() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    LOOP
        PERFORM FROM tidings_presence_log FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO tidings_presence_log
            VALUES (true, ('x' || left(md5(gen_random_uuid()::text), 15))::bit(60)::bigint, 0)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            DELETE FROM tidings_presence_transition;
        END IF;
    END LOOP;
END $$;

-- Records transitions, and forgets the oldest. The log is locked.
CREATE FUNCTION tidings_presence_record(p_users text[], p_is_online boolean, p_kept bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_last bigint;
BEGIN
    IF cardinality(p_users) > 0 THEN
        UPDATE tidings_presence_log SET number = number + cardinality(p_users)
            RETURNING number INTO v_last;
        INSERT INTO tidings_presence_transition
            SELECT v_last - cardinality(p_users) + place, user_id, p_is_online
            FROM unnest(p_users) WITH ORDINALITY AS it (user_id, place);
        DELETE FROM tidings_presence_transition WHERE number <= v_last - p_kept;
    END IF;
END $$;

-- Those of the users who have no lease but this one. The rows of a lease that is not there count for
-- nothing: a part of the tables was lost.
CREATE FUNCTION tidings_presence_only(p_users text[], p_lease_id bigint)
RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(it.user_id), '{}') FROM unnest(p_users) AS it (user_id)
    WHERE NOT EXISTS (
        SELECT FROM tidings_presence_user u JOIN tidings_presence_lease l USING (lease_id)
        WHERE u.user_id = it.user_id COLLATE "C" AND u.lease_id <> p_lease_id)
$$;

-- Who has come to an instance and who has left it. Returns false, and does nothing, when the lease is
-- not what the instance takes it to be.
CREATE FUNCTION tidings_presence_update(
    p_lease_id bigint, p_routing text, p_ttl bigint, p_confirmed bigint, p_version bigint,
    p_came text[], p_left text[], p_kept bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_version bigint := 0;
    v_users text[];
BEGIN
    PERFORM tidings_presence_lock();
    SELECT coalesce(max(version), 0) INTO v_version
        FROM tidings_presence_lease WHERE lease_id = p_lease_id;
    IF v_version < p_confirmed OR v_version >= p_version THEN
        RETURN false;
    END IF;
    INSERT INTO tidings_presence_lease
        VALUES (p_lease_id, p_routing, p_version, tidings_presence_after(p_ttl))
        ON CONFLICT (lease_id) DO UPDATE SET version = excluded.version, ends_at = excluded.ends_at;
    WITH came AS (
        INSERT INTO tidings_presence_user SELECT DISTINCT it, p_lease_id FROM unnest(p_came) AS it
        ON CONFLICT DO NOTHING RETURNING user_id
    )
    SELECT array_agg(user_id) INTO v_users FROM came;
    PERFORM tidings_presence_record(tidings_presence_only(v_users, p_lease_id), true, p_kept);
    WITH gone AS (
        DELETE FROM tidings_presence_user
        WHERE lease_id = p_lease_id AND user_id = ANY (p_left) RETURNING user_id
    )
    SELECT array_agg(user_id) INTO v_users FROM gone;
    PERFORM tidings_presence_record(tidings_presence_only(v_users, p_lease_id), false, p_kept);
    RETURN true;
END $$;

-- Ends a lease. One whose row was lost gets another, so that its users are removed.
CREATE FUNCTION tidings_presence_end(p_lease_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tidings_presence_lock();
    INSERT INTO tidings_presence_lease
        VALUES (p_lease_id, '', 9223372036854775807, '-infinity')
        ON CONFLICT (lease_id) DO UPDATE SET version = excluded.version, ends_at = excluded.ends_at;
END $$;

-- Removes up to a number of users of a lease that has ended, and then the lease. Returns whether there is
-- more to remove.
CREATE FUNCTION tidings_presence_reap(p_limit bigint, p_kept bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_lease_id bigint;
    v_users text[];
BEGIN
    -- Most of the time there is nothing, and no need for the lock.
    IF NOT EXISTS (SELECT FROM tidings_presence_lease WHERE ends_at <= clock_timestamp()) THEN
        RETURN false;
    END IF;
    PERFORM tidings_presence_lock();
    -- A heartbeat that comes in time renews it before, one that comes later finds that it has ended.
    UPDATE tidings_presence_lease SET version = 9223372036854775807
        WHERE ends_at <= clock_timestamp() AND lease_id = (
            SELECT lease_id FROM tidings_presence_lease
            WHERE ends_at <= clock_timestamp() ORDER BY ends_at LIMIT 1)
        RETURNING lease_id INTO v_lease_id;
    WITH gone AS (
        DELETE FROM tidings_presence_user WHERE lease_id = v_lease_id AND user_id IN (
            SELECT user_id FROM tidings_presence_user WHERE lease_id = v_lease_id LIMIT p_limit)
        RETURNING user_id
    )
    SELECT array_agg(user_id) INTO v_users FROM gone;
    PERFORM tidings_presence_record(tidings_presence_only(v_users, v_lease_id), false, p_kept);
    DELETE FROM tidings_presence_lease WHERE lease_id = v_lease_id AND NOT EXISTS (
        SELECT FROM tidings_presence_user WHERE lease_id = v_lease_id);
    RETURN EXISTS (SELECT FROM tidings_presence_lease WHERE ends_at <= clock_timestamp());
END $$;
