//! Counts and times requests. The meters of a route are looked up once and cached, because a look-up with labels costs a dozen
//! allocations.

use std::collections::HashMap;
use std::sync::RwLock;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};

/// Cached meters, bounded by the routes, the known methods and the possible statuses.
#[derive(Default)]
pub struct Meters(RwLock<HashMap<String, Vec<Meter>>>);

#[derive(Clone)]
struct Meter {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    seconds: Histogram,
}

impl Meters {
    pub fn note(&self, method: &Method, route: &str, status: StatusCode, seconds: f64) {
        let method = word(method);
        let meter = self.known(method, route, status).unwrap_or_else(|| self.begin(method, route, status));
        meter.requests.increment(1);
        meter.seconds.record(seconds);
    }

    fn known(&self, method: &'static str, route: &str, status: StatusCode) -> Option<Meter> {
        let meters = self.0.read().expect("nothing panics under this lock");
        meters.get(route)?.iter().find(|meter| meter.method == method && meter.status == status).cloned()
    }

    fn begin(&self, method: &'static str, route: &str, status: StatusCode) -> Meter {
        let labels =
            [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.as_u16().to_string())];
        let requests = counter!("taskgate_http_requests_total", &labels);
        let seconds = histogram!("taskgate_http_request_seconds", &labels[..2]);
        let meter = Meter { method, status, requests, seconds };
        let mut meters = self.0.write().expect("nothing panics under this lock");
        meters.entry(route.to_owned()).or_default().push(meter.clone());
        meter
    }
}

/// The label of a method. Clients may send any text, so only known methods become labels.
pub fn word(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_kept_for_each_method_route_and_status() {
        let meters = Meters::default();
        for (method, status) in [(Method::GET, 200), (Method::GET, 200), (Method::GET, 404), (Method::POST, 200)] {
            meters.note(&method, "/livez", StatusCode::from_u16(status).unwrap(), 0.1);
        }
        meters.note(&Method::from_bytes(b"BREW").unwrap(), "/livez", StatusCode::OK, 0.1);
        assert_eq!(meters.0.read().unwrap()["/livez"].len(), 4);
        assert_eq!(word(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
