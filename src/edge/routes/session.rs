//! `/v1/session` and below: who is logged in, login and logout.

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Auth;
use crate::edge::answer::{Answer, Body, Described, Refusals, Refused};
use crate::edge::base;
use crate::edge::extract::{JsonText, wishes};
use crate::edge::login;
use crate::edge::middleware::authenticate::whoever;
use crate::edge::middleware::forwarded::Client;
use crate::edge::problem::Problem;
use crate::edge::session::{self, ATTEMPT, SESSION};
use crate::edge::slugs::{self, Slug};
use crate::edge::state::Edge;
use crate::guard::oidc::{Attempt, OidcError, Person, Provider};
use crate::guard::tokens::Identity;
use ledger::Scope;

/// How long a login at the provider may take.
const ATTEMPT_SECONDS: u64 = 600;

/// The caller, and the ways to log in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    /// Whether the caller is authenticated, or no token is required.
    pub authenticated: bool,
    /// A person, `token NAME`, or `anybody` where no token is required; null for an unknown caller.
    #[schema(example = "ann")]
    pub who: Option<String>,
    /// The caller's scopes.
    #[schema(value_type = Vec<String>, example = json!(["read"]))]
    pub scopes: Vec<&'static str>,
    /// The value for the header `X-CSRF-Token` of requests that change something, if the caller has a session cookie.
    pub csrf: Option<String>,
    pub expires_at: Option<String>,
    pub login: LoginView,
}

/// The ways to log in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Login)]
pub struct LoginView {
    /// The path at which a browser logs in with the provider.
    pub oidc: Option<String>,
    /// Whether `POST /v1/session` accepts a name and a password.
    pub password: bool,
}

/// Who am I
///
/// Needs no token: an unknown caller learns how to log in.
#[utoipa::path(get, path = "/v1/session", tag = "operation", operation_id = "get_session")]
pub async fn get_session(
    State(edge): State<Edge>,
    headers: HeaderMap,
) -> Result<Answer<SessionView>, Refused<ledger::Error>> {
    let (identity, secret) = match whoever(&edge, &headers).await {
        Ok(known) => known.map_or((None, None), |(identity, secret)| (Some(identity), secret)),
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => (None, None),
        Err(problem) => return Err(problem.into()),
    };
    Ok(Answer::of(&view(&edge, identity.as_ref(), secret.as_deref())).no_store())
}

/// Log in with a password
///
/// For users of `[[users]]`. The answer sets a cookie that scripts cannot read.
#[utoipa::path(
    post, path = "/v1/session", tag = "operation", operation_id = "log_in",
    request_body(content = inline(serde_json::Value), content_type = "application/json", description = "`user` and `password`",
        example = json!({"user": "ann", "password": "…"})),
)]
pub async fn log_in(
    State(edge): State<Edge>,
    client: Option<axum::Extension<Client>>,
    JsonText(body): JsonText,
) -> Result<Answer<SessionView>, Refused<(Body, Login)>> {
    let (user, password) = wishes(&body, &["user", "password"], |problems, fields| {
        let mut needed = |name: &str| {
            let text = fields.get(name).and_then(|value| problems.within(name, |problems| problems.text(value)));
            text.unwrap_or_else(|| {
                problems.add_at(name, "is required");
                String::new()
            })
        };
        (needed("user"), needed("password"))
    })?;
    let user = login::user(&edge, &user, &password).await?;
    let person = Person { name: user.name, scopes: user.scopes };
    let (identity, secret) = edge.authority.log_in(&person.name, &person.scopes, edge.session).await?;
    let cookie = kept(&edge, &secret, client.as_deref());
    let answer = Answer::of(&view(&edge, Some(&identity), Some(&secret)));
    Ok(answer.with(header::SET_COOKIE, cookie.to_str().unwrap_or_default()).no_store())
}

/// Log out
///
/// The session ends at once, at all replicas.
#[utoipa::path(
    delete, path = "/v1/session", tag = "operation", operation_id = "log_out",
    responses((status = 204, description = "Logged out"))
)]
pub async fn log_out(
    State(edge): State<Edge>,
    client: Option<axum::Extension<Client>>,
    headers: HeaderMap,
) -> Result<Described, Refused<Login>> {
    let known = match whoever(&edge, &headers).await {
        Ok(known) => known,
        // Their session has ended already.
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => None,
        Err(problem) => return Err(problem.into()),
    };
    if let Some((identity, Some(secret))) = known {
        session::check(&axum::http::Method::DELETE, &headers, &secret)?;
        if let Some(id) = identity.id() {
            edge.authority.log_out(id).await?;
        }
    }
    let is_https = client.is_some_and(|client| client.is_https);
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, session::set(SESSION, None, 0, is_https));
    Ok(Described(response))
}

#[derive(Debug, Deserialize)]
pub struct Way {
    to: Option<String>,
}

/// Log in with the provider
///
/// For browsers: redirects to the OpenID provider, which redirects back to `/v1/session/callback`.
#[utoipa::path(
    get, path = "/v1/session/login", tag = "operation", operation_id = "begin_login",
    params(("to" = Option<String>, Query, description = "The page of the dashboard to come back to")),
    responses((status = 303, description = "To the provider, or to the dashboard where there is none"))
)]
pub async fn begin_login(
    State(edge): State<Edge>,
    client: Option<axum::Extension<Client>>,
    Query(way): Query<Way>,
) -> Result<Described, Refused<Login>> {
    let back = session::way_back(way.to.as_deref());
    let Some(provider) = &edge.provider else { return Ok(Described(to(&back))) };
    let attempt = Attempt::begin();
    let mut response = to(&provider.begin(&attempt).await.map_err(Problem::from)?);
    let is_https = client.is_some_and(|client| client.is_https);
    let kept = format!("{}.{}", attempt.text(), hex(&back));
    let cookie = session::set(ATTEMPT, Some(&kept), ATTEMPT_SECONDS, is_https);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(Described(response))
}

#[derive(Debug, Deserialize)]
pub struct Answered {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// The callback from the provider
#[utoipa::path(
    get, path = "/v1/session/callback", tag = "operation", operation_id = "finish_login",
    params(("code" = Option<String>, Query), ("state" = Option<String>, Query), ("error" = Option<String>, Query)),
    responses((status = 303, description = "Logged in, or nobody logs in this way here: to the dashboard"))
)]
pub async fn finish_login(
    State(edge): State<Edge>,
    Query(answered): Query<Answered>,
    request: Request,
) -> Result<Described, Refused<Login>> {
    let Some(provider) = &edge.provider else { return Ok(Described(to(&session::way_back(None)))) };
    let kept = session::cookie(request.headers(), ATTEMPT).map(str::to_owned);
    let client = request.extensions().get::<Client>().cloned();
    drop(request);
    let (person, back) = answer_of(provider, answered, kept).await.map_err(Problem::from)?;
    let (_, secret) = edge.authority.log_in(&person.name, &person.scopes, edge.session).await?;
    let mut response = to(&back);
    let is_https = client.as_ref().is_some_and(|client| client.is_https);
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, kept_session(&edge, &secret, is_https));
    headers.append(header::SET_COOKIE, session::set(ATTEMPT, None, 0, is_https));
    Ok(Described(response))
}

async fn answer_of(
    provider: &Provider,
    answered: Answered,
    kept: Option<String>,
) -> Result<(Person, String), OidcError> {
    if let Some(error) = answered.error {
        let told = answered.error_description.unwrap_or_default();
        return Err(OidcError::Refused(format!("{error} {told}").trim().chars().take(300).collect()));
    }
    let (attempt, back) = kept.as_deref().and_then(|kept| kept.split_once('.')).ok_or(OidcError::Foreign)?;
    let attempt = Attempt::read(attempt).ok_or(OidcError::Foreign)?;
    let (Some(state), Some(code)) = (answered.state, answered.code) else { return Err(OidcError::Foreign) };
    let back = unhex(back).unwrap_or_else(|| base::path("/dashboard/"));
    Ok((provider.finish(&attempt, &state, &code).await?, back))
}

/// The problems of login and logout.
pub struct Login;

impl Refusals for Login {
    fn kinds() -> Vec<&'static Slug> {
        vec![
            &slugs::LOGIN_FAILED,
            &slugs::NO_ROLE,
            &slugs::FORGED_REQUEST,
            &slugs::RATE_LIMITED,
            &slugs::PROVIDER_UNAVAILABLE,
            &slugs::LEDGER_UNAVAILABLE,
        ]
    }
}

impl From<OidcError> for Problem {
    fn from(error: OidcError) -> Self {
        let slug = match error {
            OidcError::Away(_) => &slugs::PROVIDER_UNAVAILABLE,
            OidcError::Foreign | OidcError::Refused(_) | OidcError::Unfit(_) => &slugs::LOGIN_FAILED,
            OidcError::NoRole(_) => &slugs::NO_ROLE,
        };
        Self::new(slug).detail(error.to_string())
    }
}

fn view(edge: &Edge, identity: Option<&Identity>, secret: Option<&str>) -> SessionView {
    let scopes = Scope::ALL.into_iter().filter(|scope| identity.is_some_and(|identity| identity.may(*scope)));
    SessionView {
        authenticated: identity.is_some(),
        who: identity.map(Identity::shown),
        scopes: scopes.map(Scope::as_str).collect(),
        csrf: secret.map(session::csrf),
        expires_at: identity.and_then(Identity::expires_at).map(|at| at.rfc3339()),
        login: LoginView {
            oidc: (edge.auth == Auth::Oidc).then(|| base::path("/v1/session/login")),
            password: !edge.passwords.is_empty(),
        },
    }
}

fn kept(edge: &Edge, secret: &str, client: Option<&Client>) -> HeaderValue {
    kept_session(edge, secret, client.is_some_and(|client| client.is_https))
}

fn kept_session(edge: &Edge, secret: &str, is_https: bool) -> HeaderValue {
    session::set(SESSION, Some(secret), edge.session.as_secs(), is_https)
}

/// A 303 redirect.
fn to(place: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    private(response)
}

fn private(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A path in a form that a cookie can hold.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let text = String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()?;
    // The cookie may be forged.
    let path = text.strip_prefix(&base::path("")).unwrap_or(&text).to_owned();
    Some(session::way_back(Some(&path)))
}
