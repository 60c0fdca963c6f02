//! Errors of the ledger.

/// An error of the ledger. Absence is not an error, but `Ok(None)`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, no answer in time, server starting or stopping: the same call may succeed later.
    #[error("the ledger does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row that breaks the schema's own rules.
    #[error("ledger row {row} has a corrupt {table}.{column}")]
    Corrupt { table: &'static str, column: &'static str, row: String },
    /// Any other refusal of the database; repeating the call would not help.
    #[error("the ledger refused a statement")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the ledger's schema could not be brought up to date")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A ledger of an older release that this one cannot read, with advice.
#[derive(Debug, thiserror::Error)]
#[error("an earlier version made this ledger, and this version cannot read its tables: {advice}")]
pub(crate) struct OldShape {
    pub advice: &'static str,
}

impl Error {
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The database's own error, and a remedy if one is known.
    pub fn told(&self) -> String {
        let cause = std::error::Error::source(self).map_or_else(|| self.to_string(), ToString::to_string);
        match remedy(&cause) {
            Some(remedy) => format!("{cause}; {remedy}"),
            None => cause,
        }
    }
}

fn remedy(cause: &str) -> Option<&'static str> {
    if cause.contains("read-only transaction") || cause.contains("recovery") {
        return Some(
            "the server is a standby, or was made read-only: `psql URL -c 'select pg_is_in_recovery()'` prints f on the primary; \
             point database.url at the primary, or promote this server with `psql URL -c 'select pg_promote()'`",
        );
    }
    if cause.contains("readonly database") {
        return Some("the file or its folder may not be written by this user: see `ls -l`");
    }
    if cause.contains("permission denied") {
        return Some(
            "the user of database.url lacks rights: grant it usage on the schema taskgate and all rights on its tables",
        );
    }
    None
}
