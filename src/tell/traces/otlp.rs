//! OTLP over HTTP in its JSON encoding, which every collector accepts and a person can read.
//!
//! Ids are hexadecimal and 64-bit numbers are texts, as the specification asks of this encoding.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::span::{Span, Value};
use crate::config::Telemetry;

/// Timeout of a request; a slower collector counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);
/// `STATUS_CODE_ERROR`
const FAILED: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the collector cannot be reached")]
    Away(#[from] reqwest::Error),
    #[error("the collector answers {0}")]
    Refused(u16),
}

impl ExportError {
    /// Whether a retry may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Refused(status) => *status >= 500 || *status == 429 || *status == 408,
        }
    }
}

/// Sends spans to one collector. Cheap to clone.
#[derive(Clone)]
pub struct Exporter {
    client: reqwest::Client,
    url: String,
    headers: Vec<(String, String)>,
    resource: Arc<Json>,
}

impl Exporter {
    /// `instance` names this process among the replicas. `None` without an endpoint.
    pub fn new(config: &Telemetry, instance: &str) -> Option<Self> {
        let endpoint = config.otlp_endpoint.as_ref()?.reveal().trim_end_matches('/');
        let url = if endpoint.ends_with("/v1/traces") { endpoint.to_owned() } else { format!("{endpoint}/v1/traces") };
        let resource = json!({"attributes": [
            attribute("service.name", &config.service_name.as_str().into()),
            attribute("service.version", &env!("CARGO_PKG_VERSION").into()),
            attribute("service.instance.id", &instance.into()),
        ]});
        let headers = config.otlp_headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
        Some(Self { client: client(), url, headers: headers.collect(), resource: Arc::new(resource) })
    }

    /// Sends one request.
    pub async fn export(&self, spans: &[Span]) -> Result<(), ExportError> {
        if spans.is_empty() {
            return Ok(());
        }
        let mut request = self.client.post(&self.url).json(&document(&self.resource, spans));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        if !answer.status().is_success() {
            return Err(ExportError::Refused(answer.status().as_u16()));
        }
        metrics::counter!("taskgate_spans_exported_total").increment(spans.len() as u64);
        Ok(())
    }
}

/// An HTTP client with root certificates from the binary, so that it works in an empty container.
fn client() -> reqwest::Client {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(PATIENCE);
    builder.build().expect("nothing of it depends on the machine")
}

fn document(resource: &Json, spans: &[Span]) -> Json {
    let scope = json!({"name": "taskgate", "version": env!("CARGO_PKG_VERSION")});
    let spans: Vec<Json> = spans.iter().map(encoded).collect();
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

fn encoded(span: &Span) -> Json {
    let attributes: Vec<Json> = span.attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    let mut document = json!({
        "traceId": format!("{:032x}", span.context.trace),
        "spanId": format!("{:016x}", span.context.span),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": nanos(span.start),
        "endTimeUnixNano": nanos(span.end),
        "attributes": attributes,
        "status": if span.failed { json!({"code": FAILED}) } else { json!({}) },
    });
    if let Some(parent) = span.parent {
        document["parentSpanId"] = format!("{parent:016x}").into();
    }
    if let Some(link) = span.link {
        let link = json!({"traceId": format!("{:032x}", link.trace), "spanId": format!("{:016x}", link.span)});
        document["links"] = json!([link]);
    }
    document
}

fn nanos(at: runtime::clock::Time) -> String {
    format!("{}000", at.as_micros().max(0))
}

fn attribute(name: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Integer(number) => json!({"intValue": number.to_string()}),
    };
    json!({"key": name, "value": value})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tell::traces::SpanContext;
    use crate::tell::traces::span::Kind;
    use runtime::clock::Time;

    #[test]
    fn a_span_is_written_as_the_specification_asks() {
        let context = SpanContext { trace: 0xabc, span: 0x1, sampled: true };
        let span = Span {
            context,
            parent: Some(0x2),
            link: Some(context),
            name: "tasks.add run".to_owned(),
            kind: Kind::Consumer,
            start: Time(1_700_000_000_000_001),
            end: Time(1_700_000_000_000_002),
            attributes: vec![("celery.retries", 3.into())],
            failed: true,
        };
        let found = encoded(&span);
        let trace = "00000000000000000000000000000abc";
        let expected = json!({
            "traceId": trace, "spanId": "0000000000000001", "parentSpanId": "0000000000000002",
            "name": "tasks.add run", "kind": 5,
            "startTimeUnixNano": "1700000000000001000", "endTimeUnixNano": "1700000000000002000",
            "attributes": [{"key": "celery.retries", "value": {"intValue": "3"}}],
            "links": [{"traceId": trace, "spanId": "0000000000000001"}], "status": {"code": 2},
        });
        assert_eq!(found, expected);
    }
}
