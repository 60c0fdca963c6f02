//! All routes: the same list serves requests and generates the contract, so no route exists without its operation.

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::base;
use super::middleware::layers;
use super::problem::{Place, Problem, ProblemDocument};
use super::routes::{
    audit, batch, bulk, canvas, capabilities, catalog, control, dead_letters, docs, events, feed, health, hooks,
    incidents, insight, learned, limits, logs, metrics, problems, queues, result, schedules, session, stats, submit,
    tasks, tickets, tokens, waits, webhooks, workers,
};
use super::slugs;
use super::state::Edge;
use super::view::GroupView;
use super::{flower, mcp};

#[derive(OpenApi)]
#[openapi(
    components(schemas(ProblemDocument, Place, GroupView)),
    tags(
        (name = "catalog", description = "Tasks declared in the configuration"),
        (name = "submit", description = "Tasks and compositions of tasks"),
        (name = "results", description = "Results of tasks and groups"),
        (name = "tasks", description = "Tasks, their events and their history"),
        (name = "control", description = "Revoke, retry, queues, workers"),
        (name = "schedules", description = "Schedules of tasks"),
        (name = "webhooks", description = "Webhooks and their deliveries"),
        (name = "operation", description = "The gateway itself"),
    )
)]
struct Contract;

/// The routes that every gateway has, with their operations.
pub fn documented() -> OpenApiRouter<Edge> {
    OpenApiRouter::with_openapi(Contract::openapi())
        .routes(routes!(submit::submit_task, tasks::list_tasks))
        .routes(routes!(batch::submit_batch))
        .routes(routes!(canvas::submit_chain))
        .routes(routes!(canvas::submit_group))
        .routes(routes!(canvas::submit_chord))
        .routes(routes!(result::get_result))
        .routes(routes!(tasks::get_task))
        .routes(routes!(tasks::get_message))
        .routes(routes!(insight::explain_task))
        .routes(routes!(incidents::list_incidents))
        .routes(routes!(incidents::incident_history))
        .routes(routes!(incidents::acknowledge_incident))
        .routes(routes!(incidents::mute_incident, incidents::unmute_incident))
        .routes(routes!(events::watch_task))
        .routes(routes!(logs::task_logs))
        .routes(routes!(feed::watch_all))
        .routes(routes!(tickets::create_ticket))
        .routes(routes!(control::revoke_task))
        .routes(routes!(control::retry_task))
        .routes(routes!(control::resume_dag))
        .routes(routes!(control::resolve_task))
        .routes(routes!(control::task_graph))
        .routes(routes!(waits::list_waits))
        .routes(routes!(waits::get_wait, waits::answer_wait, waits::refuse_wait))
        .routes(routes!(waits::complete_task))
        .routes(routes!(dead_letters::list_dead_letters, dead_letters::delete_dead_letters))
        .routes(routes!(dead_letters::delete_dead_letter))
        .routes(routes!(dead_letters::requeue_dead_letter))
        .routes(routes!(dead_letters::requeue_dead_letters))
        .routes(routes!(bulk::list_bulks, bulk::create_bulk))
        .routes(routes!(bulk::get_bulk))
        .routes(routes!(bulk::pause_bulk))
        .routes(routes!(bulk::resume_bulk))
        .routes(routes!(bulk::cancel_bulk))
        .routes(routes!(audit::list_audit))
        .routes(routes!(session::get_session, session::log_in, session::log_out))
        .routes(routes!(session::begin_login))
        .routes(routes!(session::finish_login))
        .routes(routes!(queues::list_queues))
        .routes(routes!(queues::list_messages))
        .routes(routes!(queues::pause_queue))
        .routes(routes!(queues::resume_queue))
        .routes(routes!(queues::purge_queue))
        .routes(routes!(tokens::list_tokens))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(tokens::list_inboxes))
        .routes(routes!(limits::list_limits))
        .routes(routes!(limits::put_limit, limits::reset_limit))
        .routes(routes!(workers::list_workers))
        .routes(routes!(workers::inspect_workers))
        .routes(routes!(workers::control_workers))
        .routes(routes!(schedules::list_schedules, schedules::create_schedule))
        .routes(routes!(
            schedules::get_schedule,
            schedules::put_schedule,
            schedules::patch_schedule,
            schedules::delete_schedule
        ))
        .routes(routes!(schedules::pause_schedule))
        .routes(routes!(schedules::resume_schedule))
        .routes(routes!(schedules::run_schedule))
        .routes(routes!(schedules::preview_schedule))
        .routes(routes!(schedules::preview_document))
        .routes(routes!(schedules::schedule_runs))
        .routes(routes!(webhooks::list_webhooks, webhooks::register_webhook))
        .routes(routes!(webhooks::get_webhook, webhooks::change_webhook, webhooks::delete_webhook))
        .routes(routes!(webhooks::rotate_webhook))
        .routes(routes!(webhooks::list_deliveries))
        .routes(routes!(webhooks::resend_delivery))
        .routes(routes!(stats::throughput))
        .routes(routes!(stats::latency))
        .routes(routes!(stats::errors))
        .routes(routes!(stats::outcomes))
        .routes(routes!(stats::queue_history))
        .routes(routes!(stats::worker_history))
        .routes(routes!(capabilities::capabilities))
        .routes(routes!(health::readyz))
        .routes(routes!(health::livez))
        .routes(routes!(health::healthz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(docs::openapi))
        .routes(routes!(problems::list_problems))
        .routes(routes!(problems::get_problem))
}

/// The edge of a gateway.
pub fn router(edge: Edge) -> Router {
    // Operations that MCP clients call pass through all layers again, with their credentials.
    let agents = mcp::router(&edge, guarded(&edge, Router::new()));
    base::mounted(guarded(&edge, agents))
}

fn guarded(edge: &Edge, more: Router<Edge>) -> Router {
    let (routes, _) = documented().split_for_parts();
    let pages = docs::swagger_ui();
    #[cfg(feature = "dashboard")]
    let pages = pages.merge(super::routes::dashboard::router());
    let routes: Router<Edge> = routes
        .route("/problems/", get(problems::list_problems))
        .merge(catalog::router(&edge.catalog))
        .merge(hooks::router(&edge.catalog))
        .merge(more)
        .merge(pages)
        .merge(if edge.learns { learned::router() } else { Router::new() })
        .merge(edge.flower.as_deref().map(flower::router).unwrap_or_default())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method);
    layers::around(edge, routes).with_state(edge.clone())
}

async fn no_route() -> Problem {
    Problem::new(&slugs::ROUTE_NOT_FOUND)
}

async fn no_method(method: Method) -> Response {
    let mut response =
        Problem::new(&slugs::METHOD_NOT_ALLOWED).detail(format!("{method} is not one of its methods")).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
