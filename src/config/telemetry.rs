//! `[telemetry]`: where traces are exported to.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Scalar, Secret, Text};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTelemetry {
    otlp_endpoint: Option<Text>,
    otlp_headers: BTreeMap<String, Text>,
    service_name: Option<Text>,
    sample: Option<Scalar>,
}

#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Base URL of an OpenTelemetry collector (OTLP over HTTP, usually port 4318); `/v1/traces` is added. Also read from
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`. Default none: nothing is traced.
    pub otlp_endpoint: Option<Secret>,
    /// HTTP headers of every export, for collectors that require a key.
    pub otlp_headers: Vec<(String, Secret)>,
    /// Service name in the traces. Default `taskgate`. Also read from `OTEL_SERVICE_NAME`.
    pub service_name: String,
    /// The fraction of traces that is recorded, 0 to 1, unless the caller's `traceparent` has decided. Default 1.
    pub sample: f64,
}

impl Telemetry {
    pub(super) fn read(raw: RawTelemetry, said: &Said) -> Result<Self, Error> {
        let endpoint = raw.otlp_endpoint.map(|text| text.0).filter(|text| !text.is_empty());
        if endpoint.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            let message = "must be an http:// or https:// address: traces are sent as OTLP over HTTP";
            return Err(Error::value(said.place("telemetry.otlp_endpoint"), message));
        }
        if endpoint.is_some() && cfg!(not(feature = "otel")) {
            let message = "this taskgate was built without the feature otel: remove the key, or build with it";
            return Err(Error::value(said.place("telemetry.otlp_endpoint"), message));
        }
        let sample = raw.sample.map_or(Ok(1.0), |given| given.to_string().parse::<f64>());
        let sample = sample.ok().filter(|part| (0.0..=1.0).contains(part));
        let sample =
            sample.ok_or_else(|| Error::value(said.place("telemetry.sample"), "must be a number from 0 to 1"))?;
        Ok(Self {
            otlp_endpoint: endpoint.map(Secret::new),
            otlp_headers: raw.otlp_headers.into_iter().map(|(name, value)| (name, Secret::new(value.0))).collect(),
            service_name: raw.service_name.map_or_else(|| "taskgate".to_owned(), |text| text.0),
            sample,
        })
    }
}
