//! The access rules of all routes in one table: a route that is not in it is not served (see [`Access::of`]), and a test searches
//! the contract, the catalog and the source for such routes.
//!
//! A token may be limited to some task names. Where the table says [`Reach::Own`], the handler shows and changes only what the
//! caller's [`Visibility`](crate::guard::tokens::Visibility) allows; operations on the whole fleet are closed to such a token.

use std::collections::HashMap;

use axum::http::Method;

use crate::catalog::Catalog;
use ledger::Scope;

/// What a route requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: health checks, documentation, files of the dashboard.
    Nothing,
    Token {
        scope: Scope,
        reach: Reach,
        ticket: bool,
    },
}

/// Which part of the fleet an operation concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Tasks by name: a limited token sees its own.
    Own,
    /// The fleet as a whole.
    Fleet,
}

const OPEN: Need = Need::Nothing;
const SUBMIT: Need = Need::Token { scope: Scope::Submit, reach: Reach::Own, ticket: false };
const READ: Need = Need::Token { scope: Scope::Read, reach: Reach::Own, ticket: false };
/// A stream: `EventSource` cannot send a header, so a ticket is accepted too.
const FOLLOW: Need = Need::Token { scope: Scope::Read, reach: Reach::Own, ticket: true };
const CONTROL: Need = Need::Token { scope: Scope::Control, reach: Reach::Own, ticket: false };
const READ_FLEET: Need = Need::Token { scope: Scope::Read, reach: Reach::Fleet, ticket: false };
const CONTROL_FLEET: Need = Need::Token { scope: Scope::Control, reach: Reach::Fleet, ticket: false };

/// Webhooks report every task, and their secrets sign for the gateway; the audit log shows the acts of all callers.
const ADMIN_FLEET: Need = Need::Token { scope: Scope::Admin, reach: Reach::Fleet, ticket: false };

/// All routes that every gateway has. `GET` includes `HEAD`.
pub const TABLE: &[(&str, &str, Need)] = &[
    ("POST", "/v1/tasks", SUBMIT),
    ("POST", "/v1/tasks/batch", SUBMIT),
    ("POST", "/chain", SUBMIT),
    ("POST", "/group", SUBMIT),
    ("POST", "/chord", SUBMIT),
    ("GET", "/result/{id}", READ),
    ("GET", "/v1/tasks", READ),
    ("GET", "/v1/tasks/{id}", READ),
    ("GET", "/v1/tasks/{id}/message", READ),
    ("GET", "/v1/tasks/{id}/explain", READ),
    ("GET", "/v1/tasks/{id}/graph", READ),
    ("GET", "/v1/tasks/{id}/events", FOLLOW),
    ("GET", "/v1/tasks/{id}/logs", FOLLOW),
    ("GET", "/v1/events", FOLLOW),
    ("POST", "/v1/stream-tickets", READ),
    ("POST", "/v1/tasks/{id}/revoke", CONTROL),
    ("POST", "/v1/tasks/{id}/retry", CONTROL),
    ("POST", "/v1/tasks/{id}/resume", CONTROL),
    ("POST", "/v1/tasks/{id}/resolve", CONTROL),
    ("POST", "/v1/tasks/{id}/complete", CONTROL),
    ("GET", "/v1/waits", READ),
    // The link itself is signed, so anyone who has it may call.
    ("GET", "/v1/waits/{token}", OPEN),
    ("POST", "/v1/waits/{token}", OPEN),
    ("DELETE", "/v1/waits/{token}", OPEN),
    ("GET", "/v1/dead-letters", READ),
    ("DELETE", "/v1/dead-letters", CONTROL),
    ("DELETE", "/v1/dead-letters/{id}", CONTROL),
    ("POST", "/v1/dead-letters/{id}/requeue", CONTROL),
    ("POST", "/v1/dead-letters/requeue", CONTROL),
    ("GET", "/v1/bulk", READ),
    ("POST", "/v1/bulk", CONTROL),
    ("GET", "/v1/bulk/{id}", READ),
    ("POST", "/v1/bulk/{id}/pause", CONTROL),
    ("POST", "/v1/bulk/{id}/resume", CONTROL),
    ("POST", "/v1/bulk/{id}/cancel", CONTROL),
    ("GET", "/v1/audit", ADMIN_FLEET),
    ("GET", "/v1/schedules", READ),
    ("POST", "/v1/schedules", CONTROL),
    ("GET", "/v1/schedules/{name}", READ),
    ("PUT", "/v1/schedules/{name}", CONTROL),
    ("PATCH", "/v1/schedules/{name}", CONTROL),
    ("DELETE", "/v1/schedules/{name}", CONTROL),
    ("POST", "/v1/schedules/{name}/pause", CONTROL),
    ("POST", "/v1/schedules/{name}/resume", CONTROL),
    ("POST", "/v1/schedules/{name}/run", CONTROL),
    ("GET", "/v1/schedules/{name}/preview", READ),
    // Writes nothing.
    ("POST", "/v1/schedule-preview", READ),
    ("GET", "/v1/schedules/{name}/runs", READ),
    ("GET", "/v1/stats/throughput", READ),
    ("GET", "/v1/stats/latency", READ),
    ("GET", "/v1/stats/errors", READ),
    ("GET", "/v1/stats/outcomes", READ),
    ("GET", "/v1/stats/queues", READ_FLEET),
    ("GET", "/v1/stats/workers", READ_FLEET),
    ("GET", "/v1/incidents", READ_FLEET),
    ("GET", "/v1/incidents/history", READ_FLEET),
    ("POST", "/v1/incidents/{id}/ack", CONTROL_FLEET),
    ("POST", "/v1/incidents/{id}/mute", CONTROL_FLEET),
    ("DELETE", "/v1/incidents/{id}/mute", CONTROL_FLEET),
    ("GET", "/v1/queues", READ_FLEET),
    ("GET", "/v1/queues/{name}/messages", READ_FLEET),
    ("POST", "/v1/queues/{name}/pause", CONTROL_FLEET),
    ("POST", "/v1/queues/{name}/resume", CONTROL_FLEET),
    ("POST", "/v1/queues/{name}/purge", CONTROL_FLEET),
    ("GET", "/v1/tokens", ADMIN_FLEET),
    ("DELETE", "/v1/tokens/{id}", ADMIN_FLEET),
    ("GET", "/v1/inboxes", ADMIN_FLEET),
    ("GET", "/v1/limits", READ),
    ("PUT", "/v1/limits/{key}", CONTROL),
    ("DELETE", "/v1/limits/{key}", CONTROL),
    ("GET", "/v1/workers", READ_FLEET),
    ("GET", "/v1/inspect/{method}", READ_FLEET),
    ("POST", "/v1/control/{command}", CONTROL_FLEET),
    ("GET", "/v1/webhooks", ADMIN_FLEET),
    ("POST", "/v1/webhooks", ADMIN_FLEET),
    ("GET", "/v1/webhooks/{id}", ADMIN_FLEET),
    ("PATCH", "/v1/webhooks/{id}", ADMIN_FLEET),
    ("DELETE", "/v1/webhooks/{id}", ADMIN_FLEET),
    ("POST", "/v1/webhooks/{id}/rotate", ADMIN_FLEET),
    ("GET", "/v1/webhooks/{id}/deliveries", ADMIN_FLEET),
    ("POST", "/v1/webhooks/{id}/deliveries/{delivery}/resend", ADMIN_FLEET),
    ("GET", "/metrics", READ_FLEET),
    ("GET", "/v1/capabilities", READ),
    // Callers that are not logged in yet use these; the handlers authenticate by themselves.
    ("GET", "/v1/session", OPEN),
    ("POST", "/v1/session", OPEN),
    ("DELETE", "/v1/session", OPEN),
    ("GET", "/v1/session/login", OPEN),
    ("GET", "/v1/session/callback", OPEN),
    ("GET", "/readyz", OPEN),
    ("GET", "/livez", OPEN),
    ("GET", "/healthz", OPEN),
    ("GET", "/openapi.json", OPEN),
    ("GET", "/problems", OPEN),
    ("GET", "/problems/{slug}", OPEN),
    // Files and redirects have no operation in the contract.
    ("GET", "/", OPEN),
    // The handler requires a token itself; each operation that it calls checks its own scope.
    ("POST", "/mcp", OPEN),
    ("GET", "/.well-known/oauth-protected-resource", OPEN),
    ("GET", "/.well-known/oauth-protected-resource/mcp", OPEN),
    ("GET", "/docs", OPEN),
    ("GET", "/dashboard", OPEN),
    ("GET", "/dashboard/", OPEN),
    ("GET", "/dashboard/{*path}", OPEN),
    ("GET", "/swagger-ui", OPEN),
    ("GET", "/swagger-ui/", OPEN),
    ("GET", "/swagger-ui/{*rest}", OPEN),
    // The same page as `/problems`.
    ("GET", "/problems/", OPEN),
];

/// Flower's API, below its prefix.
pub const FLOWER: &[(&str, &str, Need)] = &[
    ("GET", "/healthcheck", OPEN),
    ("GET", "/api/workers", READ_FLEET),
    ("POST", "/api/worker/shutdown/{worker}", CONTROL_FLEET),
    ("POST", "/api/worker/pool/restart/{worker}", CONTROL_FLEET),
    ("POST", "/api/worker/pool/grow/{worker}", CONTROL_FLEET),
    ("POST", "/api/worker/pool/shrink/{worker}", CONTROL_FLEET),
    ("POST", "/api/worker/pool/autoscale/{worker}", CONTROL_FLEET),
    ("POST", "/api/worker/queue/add-consumer/{worker}", CONTROL_FLEET),
    ("POST", "/api/worker/queue/cancel-consumer/{worker}", CONTROL_FLEET),
    ("GET", "/api/tasks", READ),
    ("GET", "/api/task/types", READ),
    ("GET", "/api/queues/length", READ_FLEET),
    ("GET", "/api/task/info/{id}", READ),
    ("POST", "/api/task/apply/{name}", SUBMIT),
    ("POST", "/api/task/async-apply/{name}", SUBMIT),
    ("POST", "/api/task/send-task/{name}", SUBMIT),
    ("GET", "/api/task/result/{id}", READ),
    ("POST", "/api/task/abort/{id}", CONTROL),
    ("POST", "/api/task/revoke/{id}", CONTROL),
    ("POST", "/api/task/timeout/{name}", CONTROL_FLEET),
    ("POST", "/api/task/rate-limit/{name}", CONTROL_FLEET),
];

/// The route of tasks that are learned from workers.
pub const LEARNED: &str = "/tasks/{name}";

/// The rule of the catalog's endpoints.
pub const ENDPOINT: Need = SUBMIT;
/// The rule of the catalog's streams.
pub const STREAM: Need = FOLLOW;

/// The rule for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    This(Need),
    /// The path is known but does not have this method: the answer is 405.
    OtherMethod,
    /// The route was added without a rule in this table.
    Undeclared,
}

/// The table with a catalog's endpoints, indexed for look-ups.
#[derive(Debug)]
pub struct Access(HashMap<String, Vec<(Method, Need)>>);

impl Access {
    pub fn new(catalog: &Catalog) -> Self {
        let mut access = Self(HashMap::new());
        for (method, path, need) in TABLE {
            access.add(method, path, *need);
        }
        for endpoint in catalog.entries().iter().filter_map(|entry| entry.endpoint.as_ref()) {
            access.add("POST", &endpoint.path, ENDPOINT);
        }
        for stream in catalog.entries().iter().filter_map(|entry| entry.stream.as_ref()) {
            access.add("GET", &stream.at.path, STREAM);
        }
        // The sender is authenticated by its signature.
        for hook in catalog.hooks() {
            access.add("POST", &hook.path, OPEN);
        }
        access
    }

    /// Adds the endpoint of learned tasks.
    #[must_use]
    pub fn with_learned(mut self, wanted: bool) -> Self {
        if wanted {
            self.add("POST", LEARNED, ENDPOINT);
        }
        self
    }

    /// Adds Flower's API below this prefix.
    #[must_use]
    pub fn with_flower(mut self, prefix: Option<&str>) -> Self {
        for (method, path, need) in FLOWER.iter().filter(|_| prefix.is_some()) {
            self.add(method, &format!("{}{path}", prefix.unwrap_or_default()), *need);
        }
        self
    }

    fn add(&mut self, method: &str, path: &str, need: Need) {
        let method = method.parse().expect("the table has methods of HTTP");
        self.0.entry(path.to_owned()).or_default().push((method, need));
    }

    /// `route` is the declared route with its parameter names.
    pub fn of(&self, method: &Method, route: &str) -> Asked {
        let Some(methods) = self.0.get(route) else { return Asked::Undeclared };
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match methods.iter().find(|(known, _)| known == method) {
            Some((_, need)) => Asked::This(*need),
            None => Asked::OtherMethod,
        }
    }
}

/// The rule of an operation in the contract; `None` when it is not in the table.
pub fn of_operation(method: &str, path: &str) -> Option<Need> {
    TABLE
        .iter()
        .find(|(known, route, _)| known.eq_ignore_ascii_case(method) && *route == path)
        .map(|(_, _, need)| *need)
}

/// As [`of_operation`], whatever the path calls its parameters.
pub fn of_shape(method: &str, path: &str) -> Option<Need> {
    let is_place = |part: &str| part.starts_with('{');
    let is_alike = |route: &str| {
        let pairs = route.split('/').zip(path.split('/'));
        route.split('/').count() == path.split('/').count()
            && pairs.into_iter().all(|(left, right)| left == right || (is_place(left) && is_place(right)))
    };
    TABLE
        .iter()
        .find(|(known, route, _)| known.eq_ignore_ascii_case(method) && is_alike(route))
        .map(|(_, _, need)| *need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_contract_name_the_same_operations() {
        let document = serde_json::to_value(crate::edge::router::documented().into_openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut count = 0;
        for (path, methods) in paths {
            for method in methods.as_object().unwrap().keys() {
                assert!(of_operation(method, path).is_some(), "{method} {path} declares no access");
                count += 1;
            }
        }
        let is_file = |path: &str| {
            ["/", "/docs", "/mcp", "/problems/"].contains(&path)
                || path.starts_with("/.well-known/")
                || path.starts_with("/dashboard")
                || path.starts_with("/swagger-ui")
        };
        assert_eq!(TABLE.iter().filter(|(_, path, _)| !is_file(path)).count(), count, "a row without an operation");
    }

    #[test]
    fn a_route_that_says_nothing_is_not_served() {
        let catalog = Catalog::compile(&crate::config::Config::parse(crate::config::Role::Dev, "").unwrap()).unwrap();
        let access = Access::new(&catalog);
        assert_eq!(access.of(&Method::GET, "/v1/new"), Asked::Undeclared);
        assert_eq!(access.of(&Method::HEAD, "/livez"), Asked::This(Need::Nothing));
        assert_eq!(access.of(&Method::DELETE, "/livez"), Asked::OtherMethod);
    }
}
