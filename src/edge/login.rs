//! Checks a name and a password, at the login and as `Authorization: Basic`.
//!
//! Guessing is slow on purpose: a name has [`TRIES`] over all replicas and both ways together. A password that was right within the last
//! minute is remembered and not counted, so a client that sends it with every request is not slowed down.

use crate::config::{Quota, User};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

/// Tries for one name with a password.
const TRIES: &str = "10/m";
/// No name of the configuration is longer; a longer one is refused before its tries are counted.
const MOST_NAME: usize = 255;

/// # Errors
/// When name and password are wrong, or there were too many tries.
pub async fn user(edge: &Edge, name: &str, password: &str) -> Result<User, Problem> {
    let wrong = || Problem::new(&slugs::LOGIN_FAILED).detail("the name or the password is wrong");
    if name.len() > MOST_NAME {
        return Err(wrong());
    }
    if let Some(user) = edge.passwords.remembered(name, password) {
        return Ok(user);
    }
    let quota = Quota::parse(TRIES).expect("this is a rate");
    let tries = edge.throttle.take(&format!("login {name}"), quota).await;
    if !tries.is_allowed {
        let told = "too many tries for this name; wait a minute";
        return Err(Problem::new(&slugs::RATE_LIMITED).detail(told).retry_after(tries.retry_after));
    }
    edge.passwords.check(name, password).await.ok_or_else(wrong)
}
