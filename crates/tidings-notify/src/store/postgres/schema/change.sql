-- Changes the inbox of a user. c_ids are the numbers of events of the epochs beside them; the actions
-- on all of them take the last one, or everything without one.
CREATE FUNCTION tidings_notify_change(
    c_user text, c_action text, c_epochs bigint[], c_seqs bigint[], c_at bigint
) RETURNS TABLE (
    changed bigint, seqs bigint[], revision bigint, unread bigint, unseen bigint, epoch bigint,
    top_seq bigint
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_log tidings_notify_log;
    v_last bigint;
    v_changed bigint := 0;
    v_seqs bigint[] := '{}';
BEGIN
    PERFORM tidings_notify_durable();
    SELECT * INTO v_log FROM tidings_notify_log AS log WHERE log.user_id = c_user
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF c_action NOT IN ('read_up_to', 'see_up_to') THEN
        FOR v_index IN 1 .. coalesce(cardinality(c_seqs), 0) LOOP
            IF c_epochs[v_index] = v_log.epoch
                AND c_seqs[v_index] BETWEEN v_log.first_seq AND v_log.top_seq
                AND tidings_notify_set(v_log.id, c_seqs[v_index], c_action, c_at)
            THEN
                v_seqs := v_seqs || c_seqs[v_index];
                v_changed := v_changed + 1;
            END IF;
        END LOOP;
    ELSIF c_seqs = '{}' OR c_epochs[1] = v_log.epoch THEN
        v_last := least(coalesce(c_seqs[1], v_log.top_seq), v_log.top_seq);
        v_seqs := ARRAY[v_last];
        -- Both numbers up to which all is read or seen only rise, so that what is passed is counted once.
        IF c_action = 'read_up_to' THEN
            v_changed := tidings_notify_unread_passed(
                v_log, v_log.first_seq - 1, v_last, v_log.unread);
            IF v_changed > 0 THEN
                -- Those that were put back to unread have been changed one by one before.
                UPDATE tidings_notify_state AS state SET read_at = c_at, is_unread = false
                WHERE state.log = v_log.id AND state.seq BETWEEN v_log.first_seq AND v_last
                    AND state.is_unread AND state.archived_at IS NULL;
            END IF;
            IF v_changed > 0 AND v_last > v_log.read_seq THEN
                INSERT INTO tidings_notify_read_mark (log, up_to, at)
                VALUES (v_log.id, v_last, c_at);
            END IF;
            -- Without a change, too: all events up to there have states of their own then.
            IF v_changed > 0 OR v_last > v_log.read_seq THEN
                UPDATE tidings_notify_log AS log SET
                    unread = log.unread - v_changed, read_seq = greatest(log.read_seq, v_last),
                    unseen = CASE WHEN v_last >= log.seen_seq THEN log.unread - v_changed
                        ELSE log.unseen END
                WHERE log.id = v_log.id;
            END IF;
        ELSIF v_last > v_log.seen_seq THEN
            v_changed := tidings_notify_unread_passed(
                v_log, v_log.seen_seq, v_last, v_log.unseen);
            UPDATE tidings_notify_log AS log
            SET seen_seq = v_last, unseen = log.unseen - v_changed
            WHERE log.id = v_log.id;
        END IF;
    END IF;
    IF v_changed > 0 THEN
        UPDATE tidings_notify_log AS log
        SET revision = log.revision + 1, changed = pg_current_xact_id()
        WHERE log.id = v_log.id;
    END IF;
    RETURN QUERY SELECT v_changed, v_seqs, log.revision, log.unread, log.unseen, log.epoch, log.top_seq
    FROM tidings_notify_log AS log WHERE log.id = v_log.id;
END $$;
