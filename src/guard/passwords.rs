//! Users with passwords, for a few people without an OpenID provider. The configuration holds Argon2id hashes.
//!
//! A check takes some 50 ms and 19 MiB by design, so only a few run at a time, on separate threads. A correct password is remembered
//! for a minute as a keyed hash of name and password, so that a client with `Authorization: Basic` does not pay for each request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use crate::config::User;
use runtime::clock;

const AT_ONCE: usize = 2;
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_REMEMBERED: usize = 1_000;
/// A longer password is refused before it is hashed.
const MOST_BYTES: usize = 1_024;
/// A hash that no password matches, so that an unknown name takes as long as a wrong password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXRoaW5nc2FsdHk$c3VyZWx5IG5vdCB0aGUgaGFzaCBvZiBhbnl0aGluZw";

/// Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    users: Vec<User>,
    key: [u8; 32],
    turns: Arc<Semaphore>,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Passwords {
    pub fn new(users: Vec<User>) -> Self {
        let (turns, remembered) = (Arc::new(Semaphore::new(AT_ONCE)), Mutex::default());
        Self(Arc::new(Inner { users, key: clock::secret(), turns, remembered }))
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.0.users.is_empty()
    }

    /// The user of this name and password, when they were right a moment ago. Costs nothing.
    pub fn remembered(&self, name: &str, password: &str) -> Option<User> {
        let user = self.0.user(name).filter(|_| password.len() <= MOST_BYTES)?;
        self.0.remembers(&self.0.mark(name, password)).then_some(user)
    }

    /// The user of this name and password.
    ///
    /// # Cancel safety
    /// A dropped call leaves its hash being computed; the place of that work is free only when it is done.
    pub async fn check(&self, name: &str, password: &str) -> Option<User> {
        if password.len() > MOST_BYTES || self.is_empty() {
            return None;
        }
        if let Some(user) = self.remembered(name, password) {
            return Some(user);
        }
        let user = self.0.user(name);
        let hash = user.as_ref().map_or_else(|| NOBODY.to_owned(), |user| user.password.reveal().to_owned());
        let turn = Arc::clone(&self.0.turns).acquire_owned().await.expect("the semaphore is never closed");
        let given = password.to_owned();
        let judged = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            matches(&hash, &given)
        });
        let is_right = judged.await.unwrap_or(false);
        let user = user.filter(|_| is_right)?;
        self.0.remember(self.0.mark(name, password));
        Some(user)
    }
}

impl Inner {
    fn user(&self, name: &str) -> Option<User> {
        self.users.iter().find(|user| user.name == name).cloned()
    }

    fn mark(&self, name: &str, password: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any key will do");
        mac.update(name.as_bytes());
        mac.update(b":");
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().expect("nothing panics under this lock");
        remembered.get(mark).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut remembered = self.remembered.lock().expect("nothing panics under this lock");
        remembered.retain(|_, at| at.elapsed() < REMEMBERED);
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(mark, Instant::now());
        }
    }
}

fn matches(hash: &str, password: &str) -> bool {
    let parsed = PasswordHash::new(hash);
    parsed.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The hash of a password, for the configuration.
///
/// # Errors
/// When the password is empty or too long.
pub fn hash(password: &str) -> Result<String, String> {
    if password.is_empty() || password.len() > MOST_BYTES {
        return Err(format!("a password has 1 to {MOST_BYTES} bytes"));
    }
    let salt = SaltString::encode_b64(&clock::secret()[..16]).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[tokio::test]
    async fn only_the_right_password_of_the_right_user_lets_in() {
        let user = User { name: "ann".into(), password: Secret::new(hash("right").unwrap()), scopes: Vec::new() };
        let passwords = Passwords::new(vec![user]);
        for (name, password, lets_in) in [
            ("ann", "right", true),
            ("ann", "right", true),
            ("ann", "wrong", false),
            ("bob", "right", false),
            ("ann", "", false),
        ] {
            assert_eq!(passwords.check(name, password).await.is_some(), lets_in, "{name} {password}");
        }
    }
}
