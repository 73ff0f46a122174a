-- A log keeps the numbers of its events when it gets a new epoch, and so what was delivered of them.
CREATE FUNCTION tidings_notify_deliver(d_users text[], d_epochs bigint[], d_seqs bigint[])
RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM tidings_notify_relaxed();
    INSERT INTO tidings_notify_delivered AS delivered (log, epoch, seq)
    SELECT log.id, log.epoch, max(given.seq)
    FROM unnest(d_users, d_epochs, d_seqs) AS given (user_id, epoch, seq)
    JOIN tidings_notify_log AS log ON log.user_id = given.user_id COLLATE "C"
        AND log.epoch = given.epoch AND log.top_seq >= given.seq
    GROUP BY log.id, log.epoch ORDER BY log.id
    ON CONFLICT (log) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq
    WHERE delivered.seq < excluded.seq;
END $$;
