//! Admits callers with a valid token that has the route's scope, and passes their
//! [`Identity`](crate::guard::tokens::Identity) to the handlers in the request's extensions.
//!
//! It fails closed: a route without an access rule is not served.

use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::Auth;
use crate::edge::access::{Asked, Need, Reach};
use crate::edge::login;
use crate::edge::problem::Problem;
use crate::edge::session;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::guard::tokens::{Identity, Refusal};

const TICKET: &str = "ticket";
const LAST_EVENT_ID: &str = "last_event_id";

/// A refusal, with the caller's identity: `None` for an unknown caller.
#[derive(Debug)]
pub struct Denied {
    pub problem: Box<Problem>,
    pub identity: Option<Identity>,
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), identity: None }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Problem::from(refusal).into()
    }
}

/// The caller's identity, if it may call.
pub async fn identify(edge: &Edge, request: &mut Request) -> Result<Identity, Denied> {
    let Some(route) = request.extensions().get::<MatchedPath>().cloned() else { return Ok(Identity::anybody()) };
    let need = match edge.access.of(request.method(), route.as_str()) {
        Asked::This(need) => need,
        Asked::OtherMethod => return Ok(Identity::anybody()),
        Asked::Undeclared if request.method() == Method::OPTIONS => return Ok(Identity::anybody()),
        Asked::Undeclared => return Err(Problem::new(&slugs::INTERNAL).detail("the route declares no access").into()),
    };
    let Need::Token { scope, reach, ticket } = need else { return Ok(Identity::anybody()) };
    let ticket = if ticket { taken_out(request) } else { None };
    if edge.auth == Auth::None {
        return Ok(Identity::anybody());
    }
    // Scripts for Flower send a name and a password: the password is the token.
    let is_flower = edge.flower.as_deref().is_some_and(|prefix| route.as_str().starts_with(prefix));
    let token = if is_flower && edge.passwords.is_empty() { basic(request.headers()) } else { None };
    let identity = match (token, ticket) {
        (Some((_, token)), _) => edge.authority.holder(&token).await?,
        (None, Some(ticket)) if !request.headers().contains_key(header::AUTHORIZATION) => {
            edge.authority.bearer(&ticket).await?
        }
        _ => match whoever(edge, request.headers()).await? {
            Some((identity, None)) => identity,
            Some((identity, Some(secret))) => {
                if let Err(problem) = session::check(request.method(), request.headers(), &secret) {
                    return Err(Denied { problem: Box::new(problem), identity: Some(identity) });
                }
                identity
            }
            None => return Err(Problem::new(&slugs::UNAUTHORIZED).detail("the request has no bearer token").into()),
        },
    };
    if !identity.may(scope) {
        let problem = Problem::insufficient_scope(scope.as_str(), identity.name().unwrap_or_default());
        return Err(Denied { problem: Box::new(problem), identity: Some(identity) });
    }
    if reach == Reach::Fleet && identity.visibility().is_limited() {
        let problem = Problem::new(&slugs::TOKEN_LIMITED);
        return Err(Denied { problem: Box::new(problem), identity: Some(identity) });
    }
    Ok(identity)
}

/// Identifies a caller by token, password or session, and returns the session's secret too. `None` for an unknown caller.
pub async fn whoever(edge: &Edge, headers: &HeaderMap) -> Result<Option<(Identity, Option<String>)>, Problem> {
    if edge.auth == Auth::None {
        return Ok(Some((Identity::anybody(), None)));
    }
    if let Some((name, password)) = basic(headers).filter(|_| !edge.passwords.is_empty()) {
        let user = login::user(edge, &name, &password).await.map_err(|problem| {
            if problem.status() == StatusCode::UNAUTHORIZED { problem.invalid_token() } else { problem }
        })?;
        return Ok(Some((Identity::user(&user), None)));
    }
    if let Some(token) = bearer(headers)? {
        return Ok(Some((edge.authority.holder(token).await?, None)));
    }
    let Some(secret) = session::cookie(headers, session::SESSION) else { return Ok(None) };
    Ok(Some((edge.authority.session(secret).await?, Some(secret.to_owned()))))
}

/// The name and the password of `Authorization: Basic …`.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, text) = all.next()?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || all.next().is_some() {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| all.next().is_none());
    let token = text.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    token.map(Some).ok_or_else(|| {
        Problem::new(&slugs::UNAUTHORIZED).detail("Authorization is not one bearer token: write Bearer tg_…")
    })
}

/// Removes the ticket from the query, and also `last_event_id`: a new `EventSource` with a new ticket cannot send that as a header
/// either.
fn taken_out(request: &mut Request) -> Option<String> {
    let query = request.uri().query()?;
    let (mut kept, mut ticket, mut place) = (Vec::new(), None, None);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((TICKET, value)) => ticket = Some(value.to_owned()),
            Some((LAST_EVENT_ID, value)) => place = Some(value.to_owned()),
            _ => kept.push(pair),
        }
    }
    if ticket.is_none() && place.is_none() {
        return None;
    }
    let path = request.uri().path();
    let rest = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let uri: Uri = rest.parse().expect("a part of a URI is one");
    if let Some(place) = place.and_then(|place| HeaderValue::from_str(&place).ok()) {
        request.headers_mut().entry("last-event-id").or_insert(place);
    }
    request.extensions_mut().insert(OriginalUri(uri.clone()));
    *request.uri_mut() = uri;
    ticket
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown | Refusal::UnknownTicket => {
                Self::new(&slugs::UNAUTHORIZED).detail(refusal.to_string()).invalid_token()
            }
            Refusal::Ledger(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn split(uri: &str) -> (Option<String>, String, Option<String>) {
        let mut request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let ticket = taken_out(&mut request);
        let place = request.headers().get("last-event-id").map(|value| value.to_str().unwrap().to_owned());
        (ticket, request.uri().to_string(), place)
    }

    #[test]
    fn a_ticket_and_a_place_are_taken_out_of_the_query() {
        assert_eq!(split("/v1/events"), (None, "/v1/events".into(), None));
        assert_eq!(split("/v1/events?ticket=a"), (Some("a".into()), "/v1/events".into(), None));
        assert_eq!(
            split("/v1/events?task=x&ticket=a&last_event_id=7&queue=y"),
            (Some("a".into()), "/v1/events?task=x&queue=y".into(), Some("7".into()))
        );
    }

    #[test]
    fn only_one_bearer_token_is_read() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(|token| token.map(str::to_owned)).map_err(|problem| problem.slug().name)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["Bearer tg_x"]), Ok(Some("tg_x".to_owned())));
        assert_eq!(of(&["bearer  tg_x"]), Ok(Some("tg_x".to_owned())));
        assert_eq!(of(&["Basic eDp5"]), Err("unauthorized"));
        assert_eq!(of(&["Bearer a", "Bearer b"]), Err("unauthorized"));
    }
}
