//! The bookkeeping of chords, with the same keys as Celery 5.7, so that a header may run on both Python workers and ours.
//!
//! Each member adds its part once; the worker that adds the last part claims the body for a few seconds, sends it, and marks the chord
//! as done. If it dies, it loses its claim, and the redelivered member claims the body again.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Backend, Error};
use celery::chord::{self, ChordKeys, Part};

/// Duration of a claim in seconds, within which it must be prolonged.
const CLAIM_SECS: u64 = 6;
/// Duration of a prolonged claim in seconds: enough to send a body of any size.
const LONG_CLAIM_SECS: u64 = 21;
/// How many seconds a chord stays marked as done: longer than any redelivery race.
const DONE_SECS: u64 = 300;

/// The right to send a chord's body.
#[derive(Debug, Clone)]
pub struct Claim {
    keys: ChordKeys,
    token: String,
}

/// KEYS: .j .t .s .d base .c; ARGV: member of .d, part, place, seconds to live, claim seconds, token.
static ADD_PART: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[6]) == 'done' then return 0 end
        if redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 0 then
            redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
            redis.call('SADD', KEYS[4], ARGV[1])
        end
        local parts = redis.call('ZCOUNT', KEYS[1], '-inf', '+inf')
        for i = 1, 5 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
        local more = tonumber(redis.call('GET', KEYS[2]) or '0')
        local size = redis.call('GET', KEYS[3])
        if not size or parts ~= tonumber(size) + more then return 0 end
        if redis.call('SET', KEYS[6], ARGV[6], 'NX', 'EX', ARGV[5]) then return 1 end
        return 0
        ",
    )
});

/// KEYS: .c .s; ARGV: token, seconds.
static PROLONG: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[1]) == ARGV[1] then
            redis.call('EXPIRE', KEYS[1], ARGV[2])
            return 1
        end
        if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 1 end
        return 0
        ",
    )
});

/// KEYS: .c .j .t .s .d; ARGV: token, seconds.
static FINISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
        redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
        return 1
        ",
    )
});

/// KEYS: .c .j .t .s .d; ARGV: seconds.
static CLOSE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local claim = redis.call('GET', KEYS[1])
        if claim and claim ~= 'done' then return 0 end
        redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
        redis.call('SET', KEYS[1], 'done', 'EX', ARGV[1])
        return 1
        ",
    )
});

impl Backend {
    /// Adds a part to the header `group`, at its position (`None` is last). `Some` when it was the last part and the caller must send the
    /// body. May be repeated.
    pub async fn add_part(
        &self,
        group: &str,
        index: Option<i64>,
        part: &Part,
        expires: Duration,
        token: &str,
    ) -> Result<Option<Claim>, Error> {
        let keys = self.chord_keys(group);
        // If results never expire, Celery keeps these keys for a day.
        let ttl = if expires.is_zero() { super::CHORD_TTL_SECS } else { expires.as_secs() };
        let mut call = ADD_PART.prepare_invoke();
        for key in [&keys.parts, &keys.added, &keys.size, &keys.counted, &keys.base, &keys.claim] {
            call.key(key);
        }
        call.arg(chord::counted(&part.task_id, index)).arg(part.encode()).arg(chord::place(index));
        call.arg(ttl).arg(CLAIM_SECS).arg(token);
        let last = self.link.script::<u8>(&call).await? == 1;
        Ok(last.then(|| Claim { keys, token: token.to_owned() }))
    }

    /// Restores what Redis lost of a running header: its size, and the parts that have ended. Does not claim the body, because a member that
    /// is still unfinished will send it. May be repeated.
    pub async fn rebuild_chord(&self, group: &str, size: i32, parts: &[(Option<i64>, Part)]) -> Result<(), Error> {
        let keys = self.chord_keys(group);
        let ttl = super::CHORD_TTL_SECS;
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("SET").arg(&keys.size).arg(size).arg("EX").arg(ttl).ignore();
        for (index, part) in parts {
            pipeline.cmd("ZADD").arg(&keys.parts).arg(chord::place(*index)).arg(part.encode()).ignore();
            pipeline.cmd("SADD").arg(&keys.counted).arg(chord::counted(&part.task_id, *index)).ignore();
        }
        for key in [&keys.parts, &keys.counted] {
            pipeline.cmd("EXPIRE").arg(key).arg(ttl).ignore();
        }
        self.link.pipeline(&pipeline).await
    }

    /// Ends the bookkeeping of a header whose body the gateway sends, so that a late worker gives up. False while a worker holds the claim.
    /// May be repeated.
    pub async fn close_chord(&self, group: &str) -> Result<bool, Error> {
        let keys = self.chord_keys(group);
        let mut call = CLOSE.prepare_invoke();
        for key in [&keys.claim, &keys.parts, &keys.added, &keys.size, &keys.counted] {
            call.key(key);
        }
        Ok(self.link.script::<u8>(call.arg(DONE_SECS)).await? == 1)
    }

    /// The valid parts that were counted so far, if Redis still has them.
    pub async fn counted_parts(&self, group: &str) -> Result<Vec<Part>, Error> {
        let parts = self.raw_parts(&self.chord_keys(group).parts).await?;
        Ok(parts.iter().filter_map(|part| Part::decode(part).ok()).collect())
    }

    /// All parts, in the order of their positions.
    pub async fn parts(&self, claim: &Claim) -> Result<Vec<Part>, Error> {
        let unreadable = |error| Error::Unexpected(format!("a chord's part: {error}"));
        let parts = self.raw_parts(&claim.keys.parts).await?;
        parts.iter().map(|part| Part::decode(part).map_err(unreadable)).collect()
    }

    async fn raw_parts(&self, key: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.link.call(redis::cmd("ZRANGE").arg(key).arg(0).arg(-1)).await
    }

    /// The structure of a nested header, when one was saved.
    pub async fn saved_group(&self, claim: &Claim) -> Result<Option<Vec<u8>>, Error> {
        let mut command = redis::cmd("GET");
        command.arg(&claim.keys.base);
        self.link.call(&command).await
    }

    /// Prolongs the claim, long enough to send the body. `false`: the claim is lost, and another worker sends it.
    pub async fn prolong(&self, claim: &Claim) -> Result<bool, Error> {
        let mut call = PROLONG.key(&claim.keys.claim);
        call.key(&claim.keys.size).arg(&claim.token).arg(LONG_CLAIM_SECS);
        Ok(self.link.script::<u8>(&call).await? == 1)
    }

    /// Ends the chord after its body was sent.
    pub async fn finish_chord(&self, claim: &Claim) -> Result<(), Error> {
        let ChordKeys { parts, added, size, counted, claim: key, .. } = &claim.keys;
        let mut call = FINISH.key(key);
        for key in [parts, added, size, counted] {
            call.key(key);
        }
        call.arg(&claim.token).arg(DONE_SECS);
        let _: u8 = self.link.script(&call).await?;
        Ok(())
    }

    /// Ends the chord after a member failed, so that no later part completes it.
    pub async fn fail_chord(&self, claim: &Claim) -> Result<(), Error> {
        let mut command = redis::cmd("DEL");
        command.arg(&claim.keys.size);
        let _: u64 = self.link.call(&command).await?;
        Ok(())
    }

    /// Writes the size of a header, whose group may have been used before.
    pub async fn announce_chord(&self, group: &str, size: usize) -> Result<(), Error> {
        let keys = self.chord_keys(group);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("DEL").arg(&keys.claim).ignore();
        pipeline.cmd("SET").arg(&keys.size).arg(size).arg("EX").arg(super::CHORD_TTL_SECS).ignore();
        self.link.pipeline(&pipeline).await
    }

    /// Saves the structure of a header that is not flat.
    pub async fn save_group(&self, group: &str, structure: &str) -> Result<(), Error> {
        let mut command = redis::cmd("SET");
        command.arg(self.chord_keys(group).base).arg(structure).arg("EX").arg(super::CHORD_TTL_SECS);
        self.link.call(&command).await
    }

    fn chord_keys(&self, group: &str) -> ChordKeys {
        let ChordKeys { base, parts, size, added, counted, claim } = ChordKeys::new(group);
        let prefixed = |key: String| format!("{}{key}", self.prefix);
        ChordKeys {
            base: prefixed(base),
            parts: prefixed(parts),
            size: prefixed(size),
            added: prefixed(added),
            counted: prefixed(counted),
            claim: prefixed(claim),
        }
    }
}
