//! How people log in: an OpenID provider, or a few users with passwords; and what each may do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::value::{Secret, Span, Text, Words};
use super::{Auth, Error, Said};
use ::ledger::Scope;

/// The role whose scopes everybody who logs in has.
const EVERYBODY: &str = "*";
const DEFAULT_SESSION: Duration = Duration::from_secs(12 * 3600);
/// A session that lasted longer would be as good as a password that is never changed.
const LONGEST_SESSION: Duration = Duration::from_secs(90 * 86_400);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLogin {
    session: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawOidc {
    issuer: Option<Text>,
    client_id: Option<Text>,
    /// Authenticates this gateway to the provider. Default none: a public client, which PKCE protects.
    client_secret: Option<Text>,
    redirect_url: Option<Text>,
    /// Scopes requested from the provider besides `openid`. Default `profile`, `email`.
    scopes: Option<Words>,
    name_claim: Option<Text>,
    roles_claim: Option<Text>,
    roles: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawUser {
    /// Name of the user, as it is shown and written into the audit log. Required.
    name: Text,
    /// The hash that `taskgate password` prints. Required.
    password: Text,
    /// What the user may do: `submit`, `read`, `control`, `admin`. Required.
    scopes: Words,
}

#[derive(Debug, Clone)]
pub struct Login {
    /// How long a login lasts. Default 12 h, at most 90 days.
    pub session: Duration,
}

/// An OpenID provider (`auth = "oidc"`).
#[derive(Debug, Clone)]
pub struct Oidc {
    /// The provider's issuer URL, exactly as its metadata states it: `https://id.example.com`. Required.
    pub issuer: String,
    /// The client id under which the provider knows this gateway. Required.
    pub client_id: String,
    /// Authenticates this gateway to the provider. Default none: a public client, which PKCE protects.
    pub client_secret: Option<Secret>,
    /// Callback URL that is registered at the provider: `https://tasks.example.com/v1/session/callback`. Required.
    pub redirect_url: String,
    /// Scopes requested from the provider besides `openid`. Default `profile`, `email`.
    pub scopes: Vec<String>,
    /// The claim that names a person. Default the first of `preferred_username`, `email`, `sub` that is present.
    pub name_claim: Option<String>,
    /// The claim with a person's roles, a string or a list; `a.b` means the member b of a. Default `groups`.
    pub roles_claim: String,
    /// The scopes of each role: `{ops = ["read", "control"], admins = ["admin"]}`; `*` applies to everybody who logs in. A person
    /// without any scope is refused.
    pub roles: Vec<(String, Vec<Scope>)>,
}

/// A user who logs in with a password.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    /// The hash that `taskgate password` prints.
    pub password: Secret,
    pub scopes: Vec<Scope>,
}

impl Login {
    pub(super) fn read(raw: &RawLogin, said: &Said) -> Result<Self, Error> {
        let session = raw.session.as_ref().map_or(DEFAULT_SESSION, |span| span.0);
        if session.is_zero() || session > LONGEST_SESSION {
            return Err(Error::value(said.place("login.session"), "must be longer than zero and at most 90 days"));
        }
        Ok(Self { session })
    }
}

impl Oidc {
    /// `None` unless `auth = "oidc"`.
    pub(super) fn read(raw: RawOidc, auth: Auth, said: &Said) -> Result<Option<Self>, Error> {
        if auth != Auth::Oidc {
            return Ok(None);
        }
        let needed = |key: &str, value: Option<Text>| {
            let text = value.map(|text| text.0).filter(|text| !text.is_empty());
            text.ok_or_else(|| Error::value(format!("oidc.{key}"), "is needed with auth = \"oidc\""))
        };
        let mut roles = Vec::new();
        for (role, scopes) in &raw.roles {
            roles.push((role.clone(), scopes_of(&format!("oidc.roles.{role}"), scopes)?));
        }
        if roles.is_empty() {
            let message = "is needed: say what a role may do, such as roles = {ops = [\"read\", \"control\"], \"*\" = [\"read\"]}";
            return Err(Error::value("oidc.roles", message));
        }
        let oidc = Self {
            issuer: needed("issuer", raw.issuer)?,
            client_id: needed("client_id", raw.client_id)?,
            client_secret: raw.client_secret.map(|text| Secret::new(text.0)),
            redirect_url: needed("redirect_url", raw.redirect_url)?,
            scopes: raw.scopes.map_or_else(|| vec!["profile".to_owned(), "email".to_owned()], |words| words.0),
            name_claim: raw.name_claim.map(|text| text.0),
            roles_claim: raw.roles_claim.map_or_else(|| "groups".to_owned(), |text| text.0),
            roles,
        };
        for (key, url) in [("oidc.issuer", &oidc.issuer), ("oidc.redirect_url", &oidc.redirect_url)] {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(Error::value(said.place(key), "must be an address, such as https://id.example.com"));
            }
        }
        if !oidc.redirect_url.ends_with("/v1/session/callback") {
            return Err(Error::value(said.place("oidc.redirect_url"), "must end with /v1/session/callback"));
        }
        Ok(Some(oidc))
    }

    /// The scopes of a person with these roles.
    pub fn scopes_of(&self, roles: &[String]) -> Vec<Scope> {
        let has = |role: &String| role == EVERYBODY || roles.contains(role);
        let mut scopes: Vec<Scope> =
            self.roles.iter().filter(|(role, _)| has(role)).flat_map(|(_, scopes)| scopes.clone()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }
}

pub(super) fn users(raw: Vec<RawUser>, auth: Auth) -> Result<Vec<User>, Error> {
    let mut users: Vec<User> = Vec::new();
    for (index, user) in raw.into_iter().enumerate() {
        let place = format!("users[{index}]");
        let name = user.name.0;
        if name.is_empty() || name.len() > 100 || name.chars().any(|char| char.is_control() || char == ':') {
            return Err(Error::value(format!("{place}.name"), "must have 1 to 100 characters, without colons"));
        }
        if users.iter().any(|other| other.name == name) {
            return Err(Error::value(format!("{place}.name"), format!("{name:?} stands twice")));
        }
        if !user.password.0.starts_with("$argon2id$") {
            return Err(Error::value(
                format!("{place}.password"),
                "must be what `taskgate password` prints ($argon2id$…)",
            ));
        }
        let scopes = scopes_of(&format!("{place}.scopes"), &user.scopes.0)?;
        users.push(User { name, password: Secret::new(user.password.0), scopes });
    }
    if auth == Auth::Basic && users.is_empty() {
        return Err(Error::value(
            "users",
            "is needed with auth = \"basic\": write [[users]] with name, password and scopes",
        ));
    }
    if auth == Auth::None && !users.is_empty() {
        return Err(Error::pair("auth", "users", "with auth = \"none\" nobody has to log in"));
    }
    Ok(users)
}

fn scopes_of(place: &str, words: &[String]) -> Result<Vec<Scope>, Error> {
    let read = |word: &String| {
        let known = || format!("{word:?} is none of {}", Scope::ALL.map(Scope::as_str).join(", "));
        word.parse::<Scope>().map_err(|()| Error::value(place.to_owned(), known()))
    };
    if words.is_empty() {
        return Err(Error::value(place.to_owned(), "must name at least one scope"));
    }
    words.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    const PROVIDER: &str = "auth = 'oidc'\n[oidc]\nissuer = 'https://id.example'\nclient_id = 'x'\n\
        redirect_url = 'https://tasks.example/v1/session/callback'\nroles = {ops = ['read', 'control'], '*' = ['read']}\n";

    fn refused(toml: &str) -> String {
        Config::parse(Role::Dev, toml).unwrap_err().to_string()
    }

    #[test]
    fn roles_become_scopes_and_a_star_is_everybody() {
        let config = Config::parse(Role::Dev, PROVIDER).unwrap();
        let oidc = config.oidc.unwrap();
        assert_eq!(oidc.scopes_of(&["staff".into()]), [Scope::Read]);
        assert_eq!(oidc.scopes_of(&["ops".into(), "staff".into()]), [Scope::Read, Scope::Control]);
        assert_eq!(config.login.session, DEFAULT_SESSION);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert!(refused("auth = 'oidc'").contains("oidc.roles"));
        assert!(refused("auth = 'oidc'\n[oidc]\nroles = {a = ['read']}").contains("oidc.issuer"));
        assert!(refused(&PROVIDER.replace("'control'", "'steer'")).contains("oidc.roles.ops"));
        assert!(refused(&PROVIDER.replace("/v1/session/callback", "/back")).contains("/v1/session/callback"));
        assert!(refused("auth = 'basic'").contains("users"));
        assert!(
            refused("auth = 'token'\n[[users]]\nname = 'ann'\npassword = 'x'\nscopes = ['read']")
                .contains("taskgate password")
        );
        assert!(
            refused("auth = 'none'\n[[users]]\nname = 'ann'\npassword = '$argon2id$x'\nscopes = ['read']")
                .contains("auth")
        );
    }
}
