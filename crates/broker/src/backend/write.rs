//! Writes records as Celery's backend does: stored and published in one step, and never over a SUCCESS.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Backend, Error};

/// Which existing record prevents a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless {
    /// A SUCCESS stays.
    Succeeded,
    /// Any record except RECEIVED, RETRY and REJECTED stays: for the revoke of a task that no worker seems to run.
    Known,
}

/// KEYS: the record. ARGV: record, seconds to live (0: for ever), 1 to write only over a waiting state.
/// The state is read from the first member, where all writers put it; else the record is parsed.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local old = redis.call('GET', KEYS[1])
        if old then
            local status = string.match(old, '^%s*{%s*"status"%s*:%s*"([^"]*)"')
            if not status then
                local ok, record = pcall(cjson.decode, old)
                if ok and type(record) == 'table' then status = record['status'] end
            end
            if status == 'SUCCESS' then return 0 end
            if ARGV[3] == '1' and status ~= 'RECEIVED' and status ~= 'RETRY' and status ~= 'REJECTED' then return 0 end
        end
        if tonumber(ARGV[2]) > 0 then
            redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
        else
            redis.call('SET', KEYS[1], ARGV[1])
        end
        redis.call('PUBLISH', KEYS[1], ARGV[1])
        return 1
        "#,
    )
});

/// KEYS: the records. ARGV: seconds to live (0: for ever), then each record. Answers for each 1, 0 when a SUCCESS stayed, or why
/// Redis refused it.
static STORE_ALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local expires = tonumber(ARGV[1])
        local function store(key, record)
            local old = redis.pcall('GET', key)
            if type(old) == 'table' then return old['err'] end
            if old then
                local status = string.match(old, '^%s*{%s*"status"%s*:%s*"([^"]*)"')
                if not status then
                    local ok, found = pcall(cjson.decode, old)
                    if ok and type(found) == 'table' then status = found['status'] end
                end
                if status == 'SUCCESS' then return 0 end
            end
            local set
            if expires > 0 then
                set = redis.pcall('SETEX', key, ARGV[1], record)
            else
                set = redis.pcall('SET', key, record)
            end
            if type(set) == 'table' and set['err'] then return set['err'] end
            redis.call('PUBLISH', key, record)
            return 1
        end
        local answers = {}
        for i, key in ipairs(KEYS) do answers[i] = store(key, ARGV[i + 1]) end
        return answers
        "#,
    )
});

/// A task's record to store.
#[derive(Debug, Clone)]
pub struct Record {
    pub task_id: String,
    pub text: String,
    /// Where the record goes when results come back over the broker.
    pub reply: Option<Reply>,
}

/// The queue that a task's message named for its states and result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub queue: String,
    /// The task's id, as its sender wrote it.
    pub correlation_id: String,
}

/// The outcome of storing a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    Yes,
    /// A SUCCESS existed and stays.
    Kept,
    /// This record was refused; others are not affected.
    Refused(String),
    /// Its reply queue takes no messages now, with the reason: it is full.
    NotNow(String),
}

impl Backend {
    /// Stores and publishes many records in one step, each unless a SUCCESS exists. Returns an outcome for each. May be repeated.
    pub async fn store_all(&self, records: &[Record], expires: Duration) -> Result<Vec<Stored>, Error> {
        let mut call = STORE_ALL.prepare_invoke();
        call.arg(expires.as_secs());
        for record in records {
            call.key(self.task_key(&record.task_id)).arg(&record.text);
        }
        let answers: Vec<redis::Value> = self.link.script(&call).await?;
        Ok(answers.into_iter().map(Stored::read).collect())
    }

    /// Stores and publishes a task's record. `expires` of zero keeps it for ever. `false` when the existing record stays.
    ///
    /// May be repeated: the same record is then published once more.
    pub async fn store(&self, task_id: &str, record: &str, expires: Duration, unless: Unless) -> Result<bool, Error> {
        let mut call = STORE.key(self.task_key(task_id));
        call.arg(record).arg(expires.as_secs()).arg(u8::from(unless == Unless::Known));
        Ok(self.link.script::<u8>(&call).await? == 1)
    }
}

impl Stored {
    fn read(answer: redis::Value) -> Self {
        match answer {
            redis::Value::Int(1) => Self::Yes,
            redis::Value::Int(_) => Self::Kept,
            redis::Value::BulkString(text) => Self::Refused(String::from_utf8_lossy(&text).into_owned()),
            redis::Value::SimpleString(text) => Self::Refused(text),
            other => Self::Refused(format!("{other:?}")),
        }
    }
}
