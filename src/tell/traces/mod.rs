//! Traces for an OpenTelemetry collector: one trace from the HTTP request through waiting and running, with any kind of worker.
//!
//! A request's span is made by the process that answers it. The spans of its task are derived from the changes that the ledger has
//! recorded ([`history`]), so they exist for uninstrumented workers too, a restart loses none, and the replicas export each history
//! once ([`historian`]). Ids are derived from the task, so exporting something twice gives the same spans.
//!
//! Spans carry names, queues, ids and states, never arguments, results or messages of errors.

pub mod context;
#[cfg(feature = "otel")]
mod courier;
#[cfg(feature = "otel")]
mod historian;
#[cfg(feature = "otel")]
pub mod history;
#[cfg(feature = "otel")]
mod otlp;
pub mod span;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use context::SpanContext;
#[cfg(feature = "otel")]
pub use courier::Courier;
#[cfg(feature = "otel")]
pub use historian::Historian;
#[cfg(feature = "otel")]
pub use otlp::Exporter;

use self::span::{Kind, Span, Value};
use runtime::clock::{self, Time};

/// Request spans waiting for export: a few seconds of a busy gateway.
const CAPACITY: usize = 8_192;

/// Starts and ends the spans of requests. Cheap to clone; does nothing without a collector.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    finished: mpsc::Sender<Span>,
    sample: f64,
}

impl Traces {
    /// Returns the handle and the courier's receiving end. `sample` is the share of traces recorded when no caller has decided.
    pub fn new(sample: f64) -> (Self, mpsc::Receiver<Span>) {
        let (finished, courier) = mpsc::channel(CAPACITY);
        (Self(Some(Arc::new(Inner { finished, sample }))), courier)
    }

    /// Starts a request's span as a child of the caller's span. `None` when tracing is off.
    pub fn begin(&self, traceparent: Option<&str>) -> Option<RequestSpan> {
        let inner = self.0.as_ref()?;
        let caller = traceparent.and_then(SpanContext::parse);
        let trace = caller.map_or_else(|| clock::random_id().as_u128(), |caller| caller.trace);
        let sampled = caller.map_or_else(|| context::is_sampled(trace, inner.sample), |caller| caller.sampled);
        let context = SpanContext { trace, span: context::short(clock::random_id().as_u128()), sampled };
        Some(RequestSpan { context, parent: caller.map(|caller| caller.span), start: clock::now() })
    }

    /// Ends the span. If the buffer is full, the span is dropped and counted: a request never waits for a collector.
    pub fn end(&self, span: RequestSpan, name: String, attributes: Vec<(&'static str, Value)>, failed: bool) {
        let Some(inner) = self.0.as_ref().filter(|_| span.context.sampled) else { return };
        let span = Span {
            context: span.context,
            parent: span.parent,
            link: None,
            name,
            kind: Kind::Server,
            start: span.start,
            end: clock::now(),
            attributes,
            failed,
        };
        if inner.finished.try_send(span).is_err() {
            metrics::counter!("taskgate_spans_dropped_total").increment(1);
        }
    }
}

/// The span of a request that is being answered.
#[derive(Debug)]
pub struct RequestSpan {
    context: SpanContext,
    parent: Option<u64>,
    start: Time,
}

impl RequestSpan {
    /// The `traceparent` for messages that the request causes.
    pub fn traceparent(&self) -> String {
        self.context.to_string()
    }
}
