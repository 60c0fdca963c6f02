//! All kinds of problems, the `type` of RFC 9457. A slug is part of the API: it never changes its meaning.

use axum::http::StatusCode;

/// A kind of problem, with the page that explains it.
#[derive(Debug, PartialEq, Eq)]
pub struct Slug {
    /// The last part of `/problems/<name>`.
    pub name: &'static str,
    pub status: StatusCode,
    /// A title that is the same for every occurrence.
    pub title: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

macro_rules! slugs {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $status:ident, $title:literal, $cause:literal, $cure:literal;)*) => {
        $($(#[$doc])* pub const $constant: Slug =
            Slug { name: $name, status: StatusCode::$status, title: $title, cause: $cause, cure: $cure };)*
        /// All of them, in the order of their status.
        pub const ALL: &[Slug] = &[$($constant),*];
    };
}

slugs! {
    MALFORMED_REQUEST = "malformed-request", BAD_REQUEST, "The request is not HTTP",
        "The request line or a header cannot be read as HTTP/1.1: a wrong character, no version, a header without a name. The connection is closed.",
        "Use an HTTP client; if there is a proxy in between, check what it sends.";
    INVALID_PATH = "invalid-path", BAD_REQUEST, "The path cannot be read",
        "A part of the path is not UTF-8 after percent-decoding, or an id in it is empty, longer than 255 characters or has control characters.",
        "Percent-encode the id as UTF-8. Ids made by taskgate are UUIDs; ids given by clients have 1 to 255 characters.";
    INVALID_QUERY = "invalid-query", BAD_REQUEST, "The query cannot be read",
        "A parameter is unknown, given twice where one value is expected, or not of its type; `errors` names each one.",
        "Correct the parameters that `errors` names. The operation's parameters are in /openapi.json.";
    INVALID_CURSOR = "invalid-cursor", BAD_REQUEST, "The cursor is not one of ours",
        "`cursor` was not taken unchanged from an earlier answer's `next`, or belongs to another list.",
        "Start again without `cursor`, and pass on `next` unchanged.";
    INVALID_HEADER = "invalid-header", BAD_REQUEST, "A header cannot be read",
        "`Last-Event-ID` is not a whole number, `Prefer: wait` is not a number of seconds, or `Idempotency-Key` empty, longer than 255 characters or not printable ASCII.",
        "Send the header as documented, or leave it out.";
    INVALID_JSON = "invalid-json", BAD_REQUEST, "The body is not JSON",
        "The body is not UTF-8, is not JSON, is nested deeper than the limit (64 levels by default), or has an array or object with more members than the limit (1,000,000 by default).",
        "Send one JSON document in UTF-8. The position of the mistake is in `detail`.";
    UNAUTHORIZED = "unauthorized", UNAUTHORIZED, "A token is needed",
        "The request has no bearer token, or one that is unknown, expired or revoked.",
        "Send `Authorization: Bearer tg_…` with a valid token.";
    INVALID_SIGNATURE = "invalid-signature", UNAUTHORIZED, "The event is not signed by its sender",
        "The path is one of `[[hooks]]`, and no signature in the headers matches the body and the secret, or the signed time is too far from now. Nothing was queued.",
        "Give the sender and the entry the same secret, and correct the clocks of both machines; `detail` says what is wrong.";
    LOGIN_FAILED = "login-failed", UNAUTHORIZED, "The login does not fit",
        "The name or the password is wrong, the provider refused, or the login was begun in another browser or more than ten minutes ago.",
        "Begin again at /dashboard/. If the provider refused, `detail` has its message.";
    NO_ROLE = "no-role", FORBIDDEN, "This person may do nothing here",
        "The provider knows the person, but none of their roles is in `oidc.roles`.",
        "Give the person one of the roles, or add a role (`*` is everybody) to `oidc.roles`; `oidc.roles_claim` names the claim that has them.";
    FORGED_REQUEST = "forged-request", FORBIDDEN, "The request does not come from a page of this gateway",
        "A browser that is logged in sent a request that changes something without the CSRF token (`X-CSRF-Token`) that only a page of this gateway knows.",
        "Send `csrf` of GET /v1/session as `X-CSRF-Token`, or use a bearer token. The dashboard does this by itself.";
    INSUFFICIENT_SCOPE = "insufficient-scope", FORBIDDEN, "The token lacks a scope",
        "The token is valid, but lacks the scope that the operation needs; `detail` names it.",
        "Use a token that has the scope, or create one: `taskgate token create --name NAME --scope SCOPE`.";
    TOKEN_LIMITED = "token-limited", FORBIDDEN, "The token is limited to names of tasks",
        "The operation shows or changes the whole fleet (queues, workers, incidents, metrics), but the token is limited to some task names.",
        "Use a token without such a limit.";
    FOREIGN_HOST = "foreign-host", FORBIDDEN, "The request is addressed to an unknown host",
        "No token is required here, so requests that change something must be addressed to an IP address, localhost or a name in `http.hosts`. This protects a gateway on your machine from web pages that reach it through a name of their own.",
        "Use the address of the gateway, or add the name to `http.hosts`.";
    FOREIGN_ORIGIN = "foreign-origin", FORBIDDEN, "The request comes from another site",
        "A page of another site sent this request with a browser, and no token is required here.",
        "Add the site's origin to `http.origins`, or require tokens (`auth = \"token\"`).";
    TASK_NOT_ALLOWED = "task-not-allowed", FORBIDDEN, "This task may not be submitted",
        "The name is not in the catalog, and no pattern of `submit.allow` matches it; or the token is limited to other names.",
        "Correct the name, declare the task in `[[tasks]]`, or extend `submit.allow`; or use a token that may submit it.";
    ROUTE_NOT_FOUND = "route-not-found", NOT_FOUND, "There is nothing at this path",
        "No operation has this path.",
        "Look at /swagger-ui/ or /openapi.json for the operations of this gateway, its catalog's included.";
    UNKNOWN_VALUE = "unknown-value", NOT_FOUND, "A value in the path is not known",
        "The catalog allows only certain values in this part of the path, and the given value is not among them.",
        "Use one of the values that `detail` lists.";
    TASK_NOT_FOUND = "task-not-found", NOT_FOUND, "This ledger never saw that id",
        "No task and no group with this id was submitted here or seen on the broker.",
        "Check the id, and that you ask the gateway whose ledger has the task.";
    SCHEDULE_NOT_FOUND = "schedule-not-found", NOT_FOUND, "There is no schedule of this name",
        "No schedule has this name; it may have been deleted or renamed.",
        "Look at /v1/schedules for all of them.";
    WAIT_NOT_FOUND = "wait-not-found", NOT_FOUND, "There is no such wait",
        "No step waits under this link or id: the link is invalid, the step has not begun yet, or the wait ended so long ago that its record was removed.",
        "Look at /v1/waits for those that are open.";
    WEBHOOK_NOT_FOUND = "webhook-not-found", NOT_FOUND, "There is no such webhook",
        "No webhook has this id; it may have been deleted.",
        "Look at /v1/webhooks for all of them.";
    INCIDENT_NOT_FOUND = "incident-not-found", NOT_FOUND, "There is no such incident",
        "No open incident has this id: it is over, or was never found. Ids are the same for the same kind and subject, every time.",
        "Look at /v1/incidents for those that are open, and at /v1/incidents/history for those that are over.";
    TOKEN_NOT_FOUND = "token-not-found", NOT_FOUND, "There is no such token",
        "No token of this id can be revoked: there is none, or it is revoked already.",
        "Look at /v1/tokens for all of them.";
    BULK_NOT_FOUND = "bulk-not-found", NOT_FOUND, "There is no such operation",
        "No operation on many tasks has this id, or the token is limited and another token began it.",
        "Look at /v1/bulk for the newest ones.";
    DELIVERY_NOT_FOUND = "delivery-not-found", NOT_FOUND, "There is no such delivery",
        "This webhook has no delivery of this id; finished deliveries are kept for `webhooks.keep` (30 days by default).",
        "Look at /v1/webhooks/{id}/deliveries for those that are kept.";
    PROBLEM_NOT_FOUND = "problem-not-found", NOT_FOUND, "There is no problem of this name",
        "The path names a kind of problem that does not exist.",
        "Look at /problems/ for all of them.";
    UNKNOWN_COMMAND = "unknown-command", NOT_FOUND, "Celery has no such command",
        "The last part of the path is not a command of Celery's workers, or is a command that may not be sent. Nothing was sent.",
        "Use Celery's own names, as `ping`, `active` or `stats` for looking (GET) and `rate_limit` or `pool_grow` for changing (POST).";
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "This path does not have that method",
        "The path exists, with other methods.",
        "Use one of the methods in the `Allow` header.";
    READ_ONLY = "read-only", METHOD_NOT_ALLOWED, "This gateway only reads",
        "The gateway was started with `--role read`, on a replica of the ledger: it only lists tasks and shows their results.",
        "Send the request to the gateway that `detail` and the header `Taskgate-Writer` name.";
    NOT_ACCEPTABLE = "not-acceptable", NOT_ACCEPTABLE, "No representation fits the Accept header",
        "The operation cannot answer in any of the media types that `Accept` names.",
        "Accept `application/json`, or `text/event-stream` for streams.";
    REQUEST_TIMEOUT = "request-timeout", REQUEST_TIMEOUT, "The request did not arrive in time",
        "The body took longer than `http.request_timeout` to arrive.",
        "Send it again, faster or smaller.";
    KEY_HELD = "unique-key-held", CONFLICT, "Another task holds the unique key",
        "The submission (or its task's catalog entry) has a unique key with `on_conflict: \"reject\"`, and a task that is not finished holds it; or `\"replace\"` could not take over the key, because another submission was faster or the token may not revoke the holder.",
        "Wait for the task that `detail` names, or submit with `on_conflict` `join` or `replace`.";
    ID_TAKEN = "id-taken", CONFLICT, "The id is already used",
        "`task_id` names a task that the ledger already has; nothing was submitted.",
        "Leave `task_id` out, or use a new one. To make a repeated request harmless, use `Idempotency-Key`.";
    NOT_REPLAYABLE = "not-replayable", CONFLICT, "The task cannot be sent again",
        "The ledger does not have the task's message: another client sent it, a worker built it from another task's result, or it was pruned.",
        "Submit the call again; for a step of a canvas, submit the canvas again.";
    ALREADY_ENDED = "already-ended", CONFLICT, "The task has ended",
        "The task has already ended, so there is nothing to decide.",
        "Any task can be sent again with /v1/tasks/{id}/retry.";
    STILL_HELD = "still-held", CONFLICT, "A worker has the task",
        "A worker was asked and reports that it has the task: it would run twice at the same time.",
        "Revoke it with `terminate` first, or wait for its end.";
    NOT_A_DEAD_LETTER = "not-a-dead-letter", CONFLICT, "The task is not a dead letter",
        "The task is neither `failed` nor `lost`, or it was deleted from the dead letters or re-queued before.",
        "Look at /v1/dead-letters. Any task can be sent again with /v1/tasks/{id}/retry.";
    NAME_TAKEN = "name-taken", CONFLICT, "The name is taken",
        "A schedule of this name exists; nothing was changed.",
        "Choose another name, or change the existing schedule with PUT or PATCH.";
    WAIT_OVER = "wait-over", CONFLICT, "The wait has ended",
        "It was answered or refused before, or its timeout has passed. `answer` is the first answer, if there is one; nothing was changed.",
        "Use the first answer; the next step has got it already.";
    WEBHOOK_BUILT_IN = "webhook-built-in", CONFLICT, "This webhook is not registered by anybody",
        "`catalog` and `submissions` represent the webhooks of catalog entries and of submissions; they have no URL of their own and cannot be deleted.",
        "Set `enabled` to switch them off, or rotate their secrets.";
    TOO_MANY_WEBHOOKS = "too-many-webhooks", CONFLICT, "There are too many webhooks",
        "500 webhooks are registered, which is the limit, because each adds work to every event.",
        "Delete those that are not needed, or let one receiver pass events on.";
    BULK_ENDED = "bulk-ended", CONFLICT, "The operation has ended",
        "The operation on many tasks is done or was cancelled, so it cannot be paused, resumed or cancelled any more.",
        "See its outcome (`GET /v1/bulk/{id}`), and begin a new operation for the remaining tasks.";
    IN_PROGRESS = "in-progress", CONFLICT, "The same request is still running",
        "Another request with this `Idempotency-Key` has not been answered yet.",
        "Wait a moment and repeat the request.";
    TASK_PRUNED = "task-pruned", GONE, "The task was pruned",
        "The task finished so long ago that its record was removed; only a tombstone is left.",
        "Raise `ledger.keep` to keep tasks longer.";
    PRECONDITION_FAILED = "precondition-failed", PRECONDITION_FAILED, "It was changed since you read it",
        "`If-Match` names a version that is not the present one, or `If-None-Match: *` was sent and it exists. Another client changed it; nothing was overwritten.",
        "Read it again, apply the change to the new version, and send its `ETag`.";
    PAYLOAD_TOO_LARGE = "payload-too-large", PAYLOAD_TOO_LARGE, "The body is too large",
        "The body is larger than `limits.body` (8 MiB by default).",
        "Send less: store large data elsewhere and pass its address to the task.";
    URI_TOO_LONG = "uri-too-long", URI_TOO_LONG, "The address is too long",
        "The path with its query is longer than 65,534 bytes.",
        "Ask for less at once: fewer filters, or several requests.";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body's media type is not supported",
        "`Content-Type` is missing or is not JSON.",
        "Send `Content-Type: application/json`.";
    INVALID_REQUEST = "invalid-request", UNPROCESSABLE_ENTITY, "The request does not fit",
        "The body is JSON, but a field is missing, unknown or wrong; `errors` names each place by JSON Pointer. Nothing was submitted.",
        "Correct the places that `errors` names.";
    NOBODY_RUNS_IT = "nobody-runs-it", UNPROCESSABLE_ENTITY, "No worker would run the task now",
        "The task's catalog entry is `strict`, and no online worker consumes its queue, or none that does registers the task. Nothing was submitted.",
        "Start a worker that consumes the queue and registers the task; GET /v1/workers shows the present workers. Without `strict` the task is accepted with a warning.";
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key belongs to another request",
        "The key was used before with another method, path or body.",
        "Use a new key for every new request.";
    RATE_LIMITED = "rate-limited", TOO_MANY_REQUESTS, "Too many requests",
        "The token's rate limit is used up: its own, or `limits.requests`. All replicas count together.",
        "Wait for the time in `Retry-After`; `RateLimit` of each answer says how many are left.";
    LIMIT_REACHED = "limit-reached", TOO_MANY_REQUESTS, "A limit of the task does not let it start now",
        "A key of the task's `limits` has as many tasks under way or waiting as it may, or its rate does not let one start now, or it is paused; and `on_limit` is `reject`, so the task was not accepted.",
        "Wait for the time in `Retry-After`; or set `on_limit = \"hold\"`: then the task is accepted and waits. /v1/limits shows the state of the key.";
    TOO_MANY_TOKEN_STREAMS = "too-many-token-streams", TOO_MANY_REQUESTS, "The token has too many open streams",
        "This process serves `http.max_streams_per_token` event streams of this token already.",
        "Close unused streams, follow many tasks with one stream of /v1/events, or raise `http.max_streams_per_token`.";
    HEADERS_TOO_LARGE = "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's head is too large",
        "The request line and headers are larger than `http.max_header` (64 KiB by default).",
        "Send fewer or shorter headers.";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "Something is broken here",
        "The gateway met an unexpected condition, or the ledger refused a statement. The log has the details under the request's id (`X-Request-Id`).",
        "Report it with the request's id. Repeating the request may help.";
    UNABLE = "unable", NOT_IMPLEMENTED, "The broker of this deployment cannot do this",
        "The request needs a capability that this broker does not have: `detail` says which.",
        "Use what `detail` names instead, or change the broker.";
    BACKLOG_FULL = "backlog-full", SERVICE_UNAVAILABLE, "Too much waits for Redis",
        "Redis is down or slow, and the number of accepted tasks that wait for it has reached `limits.backlog`.",
        "Wait for the time in `Retry-After`; then find out why Redis does not take messages.";
    PROVIDER_UNAVAILABLE = "provider-unavailable", SERVICE_UNAVAILABLE, "The OpenID provider cannot be reached",
        "The provider of `oidc.issuer` does not answer, or its metadata is invalid.",
        "Try again; check `oidc.issuer` and the network between it and this gateway. Tokens work meanwhile.";
    LEDGER_UNAVAILABLE = "ledger-unavailable", SERVICE_UNAVAILABLE, "The ledger does not answer",
        "The database cannot be reached or does not answer in time. A submission answered with this may or may not be accepted; with an `Idempotency-Key` it can be repeated safely.",
        "Wait for the time in `Retry-After` and repeat.";
    STORE_UNAVAILABLE = "store-unavailable", SERVICE_UNAVAILABLE, "The store of files does not answer",
        "The folder or the bucket of `[stores]` that the file was to go to cannot be written to, or writes as many files as it may already. Nothing was submitted.",
        "Send the file again after `Retry-After`. The log names the store and the reason.";
    REDIS_UNAVAILABLE = "redis-unavailable", SERVICE_UNAVAILABLE, "Redis does not answer",
        "The operation needs the broker, which cannot be reached. A revoke is stored, and sent to the workers when Redis is back; nothing else was done.",
        "Wait for the time in `Retry-After` and repeat. Tasks are accepted meanwhile.";
    TOO_MANY_STREAMS = "too-many-streams", SERVICE_UNAVAILABLE, "Too many streams are open",
        "This process serves `http.max_streams` event streams already.",
        "Close unused streams, use another replica, or raise `http.max_streams`.";
    TOO_MANY_CONNECTIONS = "too-many-connections", SERVICE_UNAVAILABLE, "Too many connections are open",
        "This process holds `http.max_connections` connections already.",
        "Wait for the time in `Retry-After`; reuse connections, use another replica, or raise `http.max_connections`.";
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, "The request took too long",
        "The answer was not ready within `http.request_timeout`.",
        "Wait for the time in `Retry-After` and repeat. A submission may have been accepted nevertheless; `Idempotency-Key` makes it safe to repeat it.";
}

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Slug> {
    ALL.iter().find(|slug| slug.name == name)
}

/// The general kind for a status, for refusals that come from the framework.
pub fn of_status(status: StatusCode) -> &'static Slug {
    match status {
        StatusCode::NOT_FOUND => &ROUTE_NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED => &METHOD_NOT_ALLOWED,
        StatusCode::NOT_ACCEPTABLE => &NOT_ACCEPTABLE,
        StatusCode::PAYLOAD_TOO_LARGE => &PAYLOAD_TOO_LARGE,
        StatusCode::URI_TOO_LONG => &URI_TOO_LONG,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => &UNSUPPORTED_MEDIA_TYPE,
        StatusCode::REQUEST_TIMEOUT => &REQUEST_TIMEOUT,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => &HEADERS_TOO_LARGE,
        StatusCode::SERVICE_UNAVAILABLE => &OVERLOADED,
        status if status.is_client_error() => &INVALID_PATH,
        _ => &INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slug_is_unique_and_written_in_lower_case_with_hyphens() {
        for slug in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == slug.name).count(), 1, "{}", slug.name);
            assert!(slug.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", slug.name);
        }
    }

    #[test]
    fn a_kind_for_any_refusal_exists() {
        for status in (400..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
            assert!(status.is_client_error() == of_status(status).status.is_client_error(), "{status}");
        }
    }
}
