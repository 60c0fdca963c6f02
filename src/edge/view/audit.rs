//! Rows of the audit as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::guard::audit::hex;
use ledger::Act;

/// A control call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct ActView {
    pub id: String,
    /// Its position in the chain of hashes; null while the call is in progress.
    pub place: Option<i64>,
    pub at: String,
    /// A person who logged in, `token NAME`, or `anybody` without authentication.
    #[schema(example = "token ops")]
    pub who: String,
    /// The token's id.
    pub token_id: Option<String>,
    /// The id of the operation in this contract.
    #[schema(example = "revoke_task")]
    pub what: String,
    /// The path of the request.
    #[schema(example = "/v1/tasks/0199…/revoke")]
    pub target: String,
    /// The address it came from.
    #[schema(example = "10.0.0.7")]
    pub from: Option<String>,
    /// `done`, a verdict of a revoke, or the name of the problem; `unknown` when the gateway ended before it was known; null while the
    /// call is in progress.
    #[schema(example = "prevented")]
    pub verdict: Option<String>,
    pub status: Option<i32>,
    pub detail: Option<String>,
    /// A hash over this row and the previous one.
    pub hash: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditList)]
pub struct ActListView {
    pub audit: Vec<ActView>,
    /// For `cursor`; null on the last page.
    pub next: Option<String>,
}

impl From<Act> for ActView {
    fn from(row: Act) -> Self {
        let (seal, place, hash) = match row.sealed {
            Some(sealed) => (Some(sealed.seal), Some(sealed.chain_no), Some(hex(&sealed.hash))),
            None => (None, None, None),
        };
        let (verdict, status, detail) =
            seal.map_or((None, None, None), |seal| (Some(seal.verdict), seal.status, seal.detail));
        let act = row.act;
        Self {
            id: act.id,
            place,
            at: act.at.rfc3339(),
            who: act.who,
            token_id: act.who_id,
            what: act.what,
            target: act.target,
            from: act.origin,
            verdict,
            status,
            detail,
            hash,
        }
    }
}
