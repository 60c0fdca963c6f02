//! Errors of brokers and result backends.

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

    /// Whether Redis understood and refused the command, so that a retry helps only after a change of Redis. False while it starts or
    /// changes roles.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Redis(error) => error.code().is_some_and(|code| {
                !["LOADING", "BUSY", "READONLY", "MASTERDOWN", "TRYAGAIN", "NOSCRIPT"].contains(&code)
            }),
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
