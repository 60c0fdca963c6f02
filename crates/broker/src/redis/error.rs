//! Errors of brokers and result backends.

/// Answers of Redis that tell of its state, and not of the command: the same command succeeds later. It starts, is a replica or has too few of
/// them, misses its primary or a part of its cluster, runs another script, cannot save its data, or is out of memory.
const STATES: [&str; 11] = [
    "LOADING",
    "READONLY",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "UNKILLABLE",
    "NOSCRIPT",
    "MISCONF",
    "OOM",
];

/// The error type of all brokers and result backends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the broker's URL is not understood: {0}")]
    Url(String),
    #[error("the broker did not answer in time")]
    TimedOut,
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
    #[error("the broker answered something unexpected: {0}")]
    Unexpected(String),
    /// Boxed, because it is rare and large.
    #[error("RabbitMQ failed")]
    Amqp(#[source] Box<lapin::Error>),
    /// RabbitMQ understood the request and refused it.
    #[error("RabbitMQ refused it: {text}")]
    Refused { code: u16, text: String },
    #[error("RabbitMQ takes no messages now: its memory or disk is short")]
    Blocked,
    /// RabbitMQ takes it when its queue is not full any more.
    #[error("RabbitMQ did not take a message: {0}")]
    NotTaken(String),
    /// No repetition helps: RabbitMQ cannot carry it, or its exchange leads nowhere.
    #[error("RabbitMQ cannot take a message: {0}")]
    Undeliverable(String),
    /// Certainly nothing was published: the call failed before the first message was sent.
    #[error(transparent)]
    Unsent(Box<Error>),
    /// A database that holds the results, in its own words.
    #[error("the database of results: {0}")]
    Results(String),
    /// The caller waited too long; nothing was published.
    #[error("it is too late to publish this: another replica may do it")]
    Stale,
}

impl Error {
    /// Whether the command may have been carried out despite the error, because its answer got lost.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Redis(error) if error.is_connection_refusal() => false,
            Self::Redis(error) => error.is_timeout() || error.is_io_error() || error.is_connection_dropped(),
            // Confirmations may have been in flight.
            Self::Amqp(_) | Self::Refused { .. } | Self::Blocked => true,
            Self::Url(_)
            | Self::Unexpected(_)
            | Self::NotTaken(_)
            | Self::Undeliverable(_)
            | Self::Unsent(_)
            | Self::Results(_)
            | Self::Stale => false,
        }
    }

    /// Whether the key has another type than the command requires.
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("WRONGTYPE"))
    }

    /// Whether the broker understood this command and refused it for what it asks: a key has another type, a user may not do it. Repeating
    /// it does not help. A state of the server is no refusal, see [`STATES`].
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.code().is_some_and(|code| !STATES.contains(&code)) && !is_state_in_script(error)
            }
            // A node that stops, or that has trouble itself, is no refusal.
            Self::Refused { code, .. } => !matches!(code, 320 | 541),
            Self::Url(_) | Self::Unexpected(_) | Self::Undeliverable(_) => true,
            Self::Unsent(why) => why.is_refusal(),
            Self::TimedOut | Self::Amqp(_) | Self::Blocked | Self::NotTaken(_) | Self::Results(_) | Self::Stale => {
                false
            }
        }
    }
}

/// Redis 6 answers `ERR` when a command of a script fails, and has the error of the command in its text: `…: -OOM command not allowed`.
fn is_state_in_script(error: &redis::RedisError) -> bool {
    let Some((_, command)) = error.detail().and_then(|text| text.split_once(": -")) else { return false };
    command.split(' ').next().is_some_and(|code| STATES.contains(&code))
}

#[cfg(test)]
mod tests {
    use redis::{RedisError, Value};

    use super::*;

    /// The error that Redis answers in this line.
    fn answered(line: &str) -> Error {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => RedisError::from(error).into(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn states_of_the_server_are_no_refusals() {
        let lines = [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "NOREPLICAS Not enough good replicas to write.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "UNKILLABLE Sorry the script already executed write commands against the dataset.",
            "NOSCRIPT No matching script. Please use EVAL.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_6b): @user_script:8: @user_script: 8: -OOM command not allowed when used memory > 'maxmemory'.",
        ];
        for line in lines {
            let error = answered(line);
            assert!(!error.is_refusal(), "{line}");
            assert!(!error.outcome_unknown(), "nothing was done: {line}");
            assert!(!Error::Unsent(Box::new(answered(line))).is_refusal(), "{line}");
        }
    }

    #[test]
    fn what_the_command_asks_for_may_be_refused() {
        let lines = [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM User default has no permissions to run the 'lpush' command",
            "ERR unknown command 'FOO'",
            "ERR Error running script (call to f_6b): @user_script:8: -WRONGTYPE Operation against a key",
        ];
        for line in lines {
            assert!(answered(line).is_refusal(), "{line}");
        }
    }
}
