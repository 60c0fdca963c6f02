//! The audit log in the ledger: a row for each control call, in a hash chain.
//!
//! A row is opened (inserted) in the act's commit or before it, so there is no act without a row. It is sealed (gets its outcome and its
//! place in the chain) when the outcome is known, so that acts do not wait for each other. If the process died in between, the row is
//! sealed later as `unknown`.
//!
//! A row's hash covers the previous hash and every column, so changing, removing or adding a row changes all later hashes. A person with
//! write access to the database can rewrite the whole chain; store its last hash elsewhere to notice that.

use std::future::Future;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::Error;
use runtime::clock::Time;

/// SHA-256; empty before the first row.
pub type ChainHash = Vec<u8>;

/// A control call, before its outcome is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAct {
    /// A UUID.
    pub id: String,
    pub at: Time,
    /// Name for display: of a token, of a person who logged in, or of a command.
    pub who: String,
    /// The token's id.
    pub who_id: Option<String>,
    /// The operation's id in the contract.
    pub what: String,
    /// The path of the request, or the command's target.
    pub target: String,
    /// The client's address.
    pub origin: Option<String>,
}

/// The outcome of a control call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    pub at: Time,
    /// The HTTP status.
    pub status: Option<i32>,
    /// `done`, a verdict of a revoke, or the name of the problem.
    pub verdict: String,
    pub detail: Option<String>,
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    pub no: i64,
    pub act: NewAct,
    /// `None` while the act is under way.
    pub sealed: Option<Sealed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub chain_no: i64,
    pub seal: Seal,
    pub hash: ChainHash,
}

#[async_trait]
pub trait Audits: Send + Sync {
    /// Opens a row before its act; does nothing when it is open already.
    async fn open_act(&self, act: &NewAct) -> Result<(), Error>;

    /// Appends the row to the chain, and opens it first if necessary. Sealing again changes nothing.
    async fn seal_act(&self, act: &NewAct, seal: &Seal) -> Result<(), Error>;

    /// Rows with numbers below `before`, newest first.
    async fn acts(&self, before: Option<i64>, limit: i64) -> Result<Vec<Act>, Error>;

    /// Rows that were opened before this time and are not sealed.
    async fn open_acts(&self, before: Time, limit: i64) -> Result<Vec<Act>, Error>;

    /// Rows in the order of the chain, after the place `after`.
    async fn chain(&self, after: i64, limit: i64) -> Result<Vec<Act>, Error>;

    /// The place and the hash of the chain's last row.
    async fn chain_head(&self) -> Result<(i64, ChainHash), Error>;
}

tokio::task_local! {
    static CURRENT: NewAct;
}

/// Runs `work` as this act: its first transaction that is caused by a person opens the row.
pub async fn within<F: Future>(act: NewAct, work: F) -> F::Output {
    CURRENT.scope(act, work).await
}

/// The current act.
pub(crate) fn current() -> Option<NewAct> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The hash of a row at this place of the chain. Each column is hashed with its length, so that different rows never have the same input.
pub fn hash(previous: &[u8], chain_no: i64, act: &NewAct, seal: &Seal) -> ChainHash {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        }
        None => hash.update(u64::MAX.to_be_bytes()),
    };
    part(Some(previous));
    for number in [chain_no, act.at.0, seal.at.0] {
        part(Some(&number.to_be_bytes()));
    }
    part(seal.status.map(i32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
    for text in [Some(&act.id), Some(&act.who), act.who_id.as_ref(), Some(&act.what), Some(&act.target)] {
        part(text.map(String::as_bytes));
    }
    for text in [act.origin.as_ref(), Some(&seal.verdict), seal.detail.as_ref()] {
        part(text.map(String::as_bytes));
    }
    hash.finalize().to_vec()
}

macro_rules! audit_columns {
    () => {
        "audit_no, audit_id, chain_no, opened_at, sealed_at, who, who_id, what, target, origin, status, verdict, detail, hash"
    };
}
pub(super) use audit_columns;

/// Reads an [`Act`] from a row of either driver.
macro_rules! read_act {
    ($row:expr) => {{
        let row = $row;
        let id: String = row.try_get("audit_id")?;
        let corrupt = |column| $crate::Error::Corrupt { table: "audit", column, row: id.clone() };
        let sealed = match row.try_get::<Option<i64>, _>("chain_no")? {
            None => None,
            Some(chain_no) => Some($crate::Sealed {
                chain_no,
                hash: row.try_get::<Option<Vec<u8>>, _>("hash")?.ok_or_else(|| corrupt("hash"))?,
                seal: $crate::Seal {
                    at: runtime::clock::Time(
                        row.try_get::<Option<i64>, _>("sealed_at")?.ok_or_else(|| corrupt("sealed_at"))?,
                    ),
                    status: row.try_get("status")?,
                    verdict: row.try_get::<Option<String>, _>("verdict")?.ok_or_else(|| corrupt("verdict"))?,
                    detail: row.try_get("detail")?,
                },
            }),
        };
        Ok($crate::Act {
            no: row.try_get("audit_no")?,
            sealed,
            act: $crate::NewAct {
                at: runtime::clock::Time(row.try_get("opened_at")?),
                who: row.try_get("who")?,
                who_id: row.try_get("who_id")?,
                what: row.try_get("what")?,
                target: row.try_get("target")?,
                origin: row.try_get("origin")?,
                id,
            },
        })
    }};
}
pub(super) use read_act;

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> (NewAct, Seal) {
        let act = NewAct {
            id: "1".into(),
            at: Time(1),
            who: "ann".into(),
            who_id: None,
            what: "revoke_task".into(),
            target: "/v1/tasks/x/revoke".into(),
            origin: Some("10.0.0.1".into()),
        };
        (act, Seal { at: Time(2), status: Some(200), verdict: "prevented".into(), detail: None })
    }

    #[test]
    fn every_column_and_the_row_before_is_in_the_hash() {
        let (act, seal) = row();
        let base = hash(b"before", 1, &act, &seal);
        let others = [
            hash(b"other", 1, &act, &seal),
            hash(b"before", 2, &act, &seal),
            hash(b"before", 1, &NewAct { who: "bob".into(), ..act.clone() }, &seal),
            hash(b"before", 1, &NewAct { who_id: Some(String::new()), ..act.clone() }, &seal),
            hash(b"before", 1, &NewAct { target: "/".into(), ..act.clone() }, &seal),
            hash(b"before", 1, &NewAct { origin: None, ..act.clone() }, &seal),
            hash(b"before", 1, &NewAct { at: Time(9), ..act.clone() }, &seal),
            hash(b"before", 1, &act, &Seal { status: None, ..seal.clone() }),
            hash(b"before", 1, &act, &Seal { verdict: "too_late".into(), ..seal.clone() }),
            hash(b"before", 1, &act, &Seal { detail: Some("x".into()), ..seal.clone() }),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn a_text_does_not_run_into_the_next() {
        let (act, seal) = row();
        let left = NewAct { who: "ab".into(), what: "c".into(), ..act.clone() };
        let right = NewAct { who: "a".into(), what: "bc".into(), ..act };
        assert_ne!(hash(b"", 1, &left, &seal), hash(b"", 1, &right, &seal));
    }
}
