//! How talking to Redis fails.

/// The same for broker and backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the Redis URL is not understood: {0}")]
    Url(String),
    #[error("Redis did not answer in time")]
    TimedOut,
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
    #[error("Redis answered something unexpected: {0}")]
    Unexpected(String),
}

impl Error {
    /// Whether the command may have been carried out all the same: its answer got lost.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Redis(error) if error.is_connection_refusal() => false,
            Self::Redis(error) => error.is_timeout() || error.is_io_error() || error.is_connection_dropped(),
            Self::Url(_) | Self::Unexpected(_) => false,
        }
    }

    /// The key holds something of another type than the command is for.
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("WRONGTYPE"))
    }

    /// Redis understood and said no; asking again helps only if somebody changes Redis. False while it starts or changes roles.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Redis(error) => error.code().is_some_and(|code| {
                !["LOADING", "BUSY", "READONLY", "MASTERDOWN", "TRYAGAIN", "NOSCRIPT"].contains(&code)
            }),
            Self::Url(_) | Self::Unexpected(_) => true,
            Self::TimedOut => false,
        }
    }
}
