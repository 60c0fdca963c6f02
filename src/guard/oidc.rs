//! Logging in with an OpenID provider: the authorization code flow with PKCE, a state and a nonce.
//!
//! Nothing is stored here between the two requests: the browser keeps a secret in a cookie for this login, and state, nonce and
//! verifier are derived from it. So any replica can finish a login that another one began, and a stolen code is useless. The
//! provider's metadata and keys are fetched when first needed, and again after a while or when a signature does not match.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreProviderMetadata};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, TokenResponse,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config;
use ledger::Scope;

/// Timeout of one request to the provider.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of the provider's answers.
const MOST_BYTES: usize = 1 << 20;
/// How long the provider's metadata and keys are cached.
const FRESH: Duration = Duration::from_secs(600);
/// Maximum length of a name that is shown and written into the audit log.
const MOST_NAME: usize = 100;

/// A person who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub scopes: Vec<Scope>,
}

#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("the provider cannot be reached: {0}")]
    Away(String),
    /// The callback belongs to another browser, or was used before.
    #[error("this login was begun elsewhere or too long ago; begin it again")]
    Foreign,
    #[error("the provider refused: {0}")]
    Refused(String),
    #[error("the provider's data about the person is not valid: {0}")]
    Unfit(String),
    /// The login succeeded, but the person has no scope here.
    #[error("{0} has no role with a permission here")]
    NoRole(String),
}

/// The secret that the browser keeps during the login.
#[derive(Debug, Clone)]
pub struct Attempt(String);

impl Attempt {
    /// `None` when the text is not such a secret.
    pub fn read(text: &str) -> Option<Self> {
        let is_one = text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_one.then(|| Self(text.to_owned()))
    }

    pub fn begin() -> Self {
        Self(URL_SAFE_NO_PAD.encode(runtime::clock::secret()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    fn derived(&self, purpose: &str) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{purpose} {}", self.0)))
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Provider {
    config: Arc<config::Oidc>,
    http: reqwest::Client,
    known: Arc<Mutex<Option<(Instant, CoreProviderMetadata)>>>,
}

impl Provider {
    pub fn new(config: config::Oidc) -> Self {
        Self { config: Arc::new(config), http: client(), known: Arc::default() }
    }

    /// The provider's issuer URL.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// A path of this gateway as people and agents reach it: from where the provider sends browsers back to.
    pub fn address(&self, path: &str) -> String {
        let known = &self.config.redirect_url;
        let base = known.split_once("/v1/").map_or(known.as_str(), |(base, _)| base);
        format!("{}{path}", base.trim_end_matches('/'))
    }

    /// The provider's URL to which the browser is sent.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub async fn begin(&self, attempt: &Attempt) -> Result<String, OidcError> {
        let metadata = self.metadata().await?;
        let client = CoreClient::from_provider_metadata(metadata, self.client_id(), self.client_secret())
            .set_redirect_uri(self.redirect_url()?);
        let verifier = PkceCodeVerifier::new(attempt.derived("verifier"));
        let (state, nonce) = (attempt.derived("state"), attempt.derived("nonce"));
        let mut request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        for scope in &self.config.scopes {
            request = request.add_scope(openidconnect::Scope::new(scope.clone()));
        }
        Ok(request.url().0.to_string())
    }

    /// Exchanges the provider's code for the person's identity.
    ///
    /// # Errors
    /// When the code does not belong to this attempt, the provider refuses it, or the person has no scope here.
    pub async fn finish(&self, attempt: &Attempt, state: &str, code: &str) -> Result<Person, OidcError> {
        let is_ours: bool = state.as_bytes().ct_eq(attempt.derived("state").as_bytes()).into();
        if !is_ours {
            return Err(OidcError::Foreign);
        }
        let metadata = self.metadata().await?;
        let client = CoreClient::from_provider_metadata(metadata, self.client_id(), self.client_secret())
            .set_redirect_uri(self.redirect_url()?);
        let http = |request: HttpRequest| fetch(self.http.clone(), request);
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|error| OidcError::Refused(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.derived("verifier")));
        let answer = exchange.request_async(&http).await.map_err(|error| OidcError::Refused(chain(&error)))?;
        let token = answer.id_token().ok_or_else(|| OidcError::Unfit("there is no ID token".to_owned()))?;
        let nonce = Nonce::new(attempt.derived("nonce"));
        if let Err(error) = token.claims(&client.id_token_verifier(), &nonce) {
            // The provider may have new keys: fetch them at the next attempt.
            self.remember(None);
            return Err(OidcError::Unfit(chain(&error)));
        }
        self.person(&verified_claims(&token.to_string())?)
    }

    fn person(&self, claims: &Map<String, Value>) -> Result<Person, OidcError> {
        let usual = ["preferred_username", "email", "sub"];
        let named = self.config.name_claim.as_deref();
        let names = named.map_or_else(|| usual.to_vec(), |name| vec![name]);
        let name = names.iter().find_map(|name| claims.get(*name)?.as_str());
        let name = name.ok_or_else(|| OidcError::Unfit(format!("there is no claim {}", names.join(" or "))))?;
        let name: String = name.chars().filter(|char| !char.is_control()).take(MOST_NAME).collect();
        let scopes = self.config.scopes_of(&roles(claims, &self.config.roles_claim));
        if scopes.is_empty() {
            return Err(OidcError::NoRole(name));
        }
        Ok(Person { name, scopes })
    }

    async fn metadata(&self) -> Result<CoreProviderMetadata, OidcError> {
        if let Some(metadata) = self.remembered() {
            return Ok(metadata);
        }
        // Several requests may fetch at the same time; none waits for another's answer.
        let issuer = IssuerUrl::new(self.config.issuer.clone()).map_err(|error| OidcError::Away(error.to_string()))?;
        let http = |request: HttpRequest| fetch(self.http.clone(), request);
        let metadata = CoreProviderMetadata::discover_async(issuer, &http)
            .await
            .map_err(|error| OidcError::Away(chain(&error)))?;
        self.remember(Some(metadata.clone()));
        Ok(metadata)
    }

    fn remembered(&self) -> Option<CoreProviderMetadata> {
        let known = self.known.lock().expect("nothing panics under this lock");
        known.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, metadata)| metadata.clone())
    }

    fn remember(&self, metadata: Option<CoreProviderMetadata>) {
        let mut known = self.known.lock().expect("nothing panics under this lock");
        *known = metadata.map(|metadata| (Instant::now(), metadata));
    }

    fn client_id(&self) -> ClientId {
        ClientId::new(self.config.client_id.clone())
    }

    fn client_secret(&self) -> Option<ClientSecret> {
        self.config.client_secret.as_ref().map(|secret| ClientSecret::new(secret.reveal().to_owned()))
    }

    fn redirect_url(&self) -> Result<RedirectUrl, OidcError> {
        RedirectUrl::new(self.config.redirect_url.clone()).map_err(|error| OidcError::Refused(error.to_string()))
    }
}

/// The claims of a token whose signature has been verified.
fn verified_claims(token: &str) -> Result<Map<String, Value>, OidcError> {
    let body = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims = body.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    claims.ok_or_else(|| OidcError::Unfit("its claims cannot be read".to_owned()))
}

/// Reads the claim at a dotted path: a string or a list of strings.
fn roles(claims: &Map<String, Value>, path: &str) -> Vec<String> {
    let mut names = path.split('.');
    let first = names.next().and_then(|name| claims.get(name));
    // A claim name may itself contain dots (`https://example.com/roles`).
    let value = claims.get(path).or_else(|| names.try_fold(first?, |value, name| value.get(name)));
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// An HTTP client that follows no redirects: a provider answers at the URLs in its metadata.
fn client() -> reqwest::Client {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent(concat!("taskgate/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("nothing of it depends on the machine")
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    #[error("the answer has more than {MOST_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Http(#[from] http::Error),
}

async fn fetch(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let mut answer = client.execute(request.try_into()?).await?;
    let mut response = http::Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        response = response.header(name, value);
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(response.body(body)?)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_are_found_where_providers_put_them() {
        let claims =
            json!({"groups": ["a", "b"], "role": "c", "realm_access": {"roles": ["d"]}, "https://x.example/r": ["e"]});
        let claims = claims.as_object().unwrap();
        assert_eq!(roles(claims, "groups"), ["a", "b"]);
        assert_eq!(roles(claims, "role"), ["c"]);
        assert_eq!(roles(claims, "realm_access.roles"), ["d"]);
        assert_eq!(roles(claims, "https://x.example/r"), ["e"]);
        assert!(roles(claims, "nothing.here").is_empty());
    }

    #[test]
    fn what_a_browser_keeps_gives_no_hint_of_what_is_made_from_it() {
        let attempt = Attempt::begin();
        assert!(Attempt::read(attempt.text()).is_some());
        let made = [attempt.derived("state"), attempt.derived("nonce"), attempt.derived("verifier")];
        assert!(made.iter().all(|text| text.len() == 43 && text != attempt.text()));
        assert!(made[0] != made[1] && made[1] != made[2]);
        assert!(Attempt::read("short").is_none());
    }
}
