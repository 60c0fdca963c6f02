//! Logins of people: browser sessions, which are tokens that belong to a person, and users who send their password with each call.

use std::sync::Arc;
use std::time::Duration;

use super::{Authority, Identity, Known, Refusal, SESSION_PREFIX, Secret};
use crate::config::User;
use ledger::{Error, Scope, Token};
use runtime::clock;

impl Authority {
    /// Begins a session. The secret goes only to the browser.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn log_in(&self, person: &str, scopes: &[Scope], lasts: Duration) -> Result<(Identity, String), Error> {
        let (secret, now, id) = (Secret::new(SESSION_PREFIX), clock::now(), clock::new_id().to_string());
        let token = Token {
            name: format!("session {person} {}", &id[id.len() - 12..]),
            hash: secret.hash(),
            scopes: scopes.to_vec(),
            tasks: Vec::new(),
            namespace: Some(person.to_owned()),
            person: Some(person.to_owned()),
            rate: None,
            created_at: now,
            expires_at: Some(now.plus(lasts)),
            revoked_at: None,
            last_used_at: None,
            id,
        };
        self.ledger.create_token(&token).await?;
        Ok((Identity(Some(Arc::new(Known::of(token)))), secret.reveal()))
    }

    /// Ends a session on all replicas.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn log_out(&self, id: &str) -> Result<(), Error> {
        self.ledger.revoke_token(id, clock::now()).await.map(drop)
    }

    /// The identity of a session.
    ///
    /// # Errors
    /// When the session is not valid, or the ledger must be asked and does not answer.
    pub async fn session(&self, text: &str) -> Result<Identity, Refusal> {
        let hash = Secret::read(SESSION_PREFIX, text).ok_or(Refusal::Unknown)?.hash();
        self.holder_of(&hash).await?.ok_or(Refusal::Unknown)
    }
}

impl Identity {
    /// The identity of a user whose password was correct.
    pub fn user(user: &User) -> Self {
        let token = Token {
            id: format!("user {}", user.name),
            name: user.name.clone(),
            hash: [0; 32],
            scopes: user.scopes.clone(),
            tasks: Vec::new(),
            namespace: Some(user.name.clone()),
            person: Some(user.name.clone()),
            rate: None,
            created_at: clock::now(),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        Self(Some(Arc::new(Known::of(token))))
    }
}
