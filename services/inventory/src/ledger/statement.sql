-- The one statement that writes to the ledger: all of a batch, or nothing of it.
--
-- It divides by zero, which undoes all of it, unless this writer's batch before it has committed and nobody else became
-- the writer (the fence), and every pool and hold is exactly as the writer believed. A version alone would not do: after
-- a lost race another writer's row can carry the very number that our next batch expects.
--
-- Sections between `only` and `end` are left out of the forms in which they would have nothing to write (form.rs). The
-- parameters of those that only the whole form has come last: the others are not given them.
WITH fenced AS (
    UPDATE fence SET seq = $2::int8, at = $3::timestamptz, renewed_at = clock_timestamp()
    WHERE id = 1 AND epoch = $1::int8 AND seq = $2::int8 - 1
    RETURNING 1
-- only: made_pools
), made_pools AS (
    INSERT INTO pool (id, key, capacity, held, sold, overbook, low_at, low, version, capacity_version, chain_head)
    SELECT * FROM unnest($4::int4[], $5::text[], $6::int8[], $7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::bool[],
                         $12::int8[], $13::int8[], $14::bytea[])
-- end
), moved_pools AS (
    UPDATE pool
    SET capacity = b.capacity, held = b.held, sold = b.sold, overbook = b.overbook, low_at = b.low_at, low = b.low,
        version = b.version, capacity_version = b.capacity_version, chain_head = b.chain_head
    FROM unnest($15::int4[], $16::int8[], $17::bytea[], $18::int8[], $19::int8[], $20::int8[], $21::int8[], $22::int8[],
                $23::bool[], $24::int8[], $25::int8[], $26::bytea[])
        AS b (id, old_version, old_head, capacity, held, sold, overbook, low_at, low, version, capacity_version, chain_head)
    WHERE pool.id = b.id AND pool.version = b.old_version AND pool.chain_head = b.old_head
    RETURNING 1
-- only: made_holds
), made_holds AS (
    INSERT INTO hold (id, state, version, expires_at, epoch, account, reference, taken, born_at, pools, units, returned)
    SELECT b.id, b.state, b.version, b.expires_at, b.epoch, b.account, b.reference, b.taken, $3::timestamptz,
           ($36::int4[])[b.first:b.last], ($37::int8[])[b.first:b.last], ($38::int8[])[b.first_back:b.last_back]
    FROM unnest($27::uuid[], $28::int2[], $29::int4[], $30::timestamptz[], $31::int8[], $32::text[], $33::text[],
                $34::int4[], $35::int4[], $39::int4[], $40::int4[], $68::bytea[])
        AS b (id, state, version, expires_at, epoch, account, reference, first, last, first_back, last_back, taken)
-- end
-- only: moved_holds
), moved_holds AS (
    UPDATE hold
    SET state = b.state, version = b.version, expires_at = b.expires_at, epoch = b.epoch, reference = b.reference,
        returned = ($38::int8[])[b.first_back:b.last_back]
    FROM unnest($41::uuid[], $42::int4[], $43::timestamptz[], $44::int2[], $45::int4[], $46::timestamptz[], $47::int8[],
                $48::text[], $49::int4[], $50::int4[])
        AS b (id, old_version, old_expires_at, state, version, expires_at, epoch, reference, first_back, last_back)
    WHERE hold.id = b.id AND hold.version = b.old_version AND hold.expires_at = b.old_expires_at
    RETURNING 1
-- end
), movements AS (
    INSERT INTO movement (at, pool, version, kind, units, held_after, sold_after, capacity_after, effective_at, hold,
                          actor, reason, hash)
    SELECT $3::timestamptz, b.*
    FROM unnest($51::int4[], $52::int8[], $53::int2[], $54::int8[], $55::int8[], $56::int8[], $57::int8[],
                $58::timestamptz[], $59::uuid[], $60::text[], $61::text[], $62::bytea[]) AS b
-- only: requests
), requests AS (
    INSERT INTO request (id, fingerprint, at)
    SELECT b.id, b.fingerprint, $3::timestamptz FROM unnest($63::uuid[], $64::bytea[]) AS b (id, fingerprint)
-- end
-- only: made_stands
), made_stands AS (
    INSERT INTO stand (id, place, standing, stood_at, expires_at, ttl_micros, account, actor, reference,
                       groups, alternatives, pools, units)
    SELECT b.id, b.place, b.standing, $3::timestamptz, b.expires_at, b.ttl_micros, b.account, b.actor, b.reference,
           ($79::int2[])[b.first:b.last], ($80::int2[])[b.first:b.last], ($81::int4[])[b.first:b.last],
           ($82::int8[])[b.first:b.last]
    FROM unnest($69::uuid[], $70::int8[], $71::bool[], $72::timestamptz[], $73::int8[], $74::text[], $75::text[],
                $76::text[], $77::int4[], $78::int4[])
        AS b (id, place, standing, expires_at, ttl_micros, account, actor, reference, first, last)
-- end
-- only: left_stands
), left_stands AS (
    UPDATE stand SET standing = false WHERE id = ANY($83::uuid[]) AND standing
    RETURNING 1
-- end
-- only: news_of_stands
), news_of_stands AS (
    INSERT INTO change (at, pools, low, expired, granted)
    SELECT $3::timestamptz, '{}', '{}', $85::uuid[], $84::uuid[]
    WHERE cardinality($84::uuid[]) + cardinality($85::uuid[]) > 0
-- end
), changes AS (
    INSERT INTO change (at, pools, low, expired)
    SELECT $3::timestamptz, $65::int4[], $66::int4[], $67::uuid[] WHERE cardinality($65::int4[]) > 0
)
SELECT 1 / (
           (SELECT count(*) FROM fenced) = 1
           AND (SELECT count(*) FROM moved_pools) = cardinality($15::int4[])
-- only: moved_holds
           AND (SELECT count(*) FROM moved_holds) = cardinality($41::uuid[])
-- end
-- only: left_stands
           AND (SELECT count(*) FROM left_stands) = cardinality($83::uuid[])
-- end
       )::int4,
       clock_timestamp()
