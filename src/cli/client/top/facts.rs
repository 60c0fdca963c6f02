//! The data of the screen, read from the API. Pure except for the reading.

use serde_json::Value;

use super::super::connection::{Client, Failure};

/// The period of the rates in seconds: the newest whole minutes.
const MINUTES: usize = 5;

#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub queues: Vec<Queue>,
    pub workers: Vec<Worker>,
    pub incidents: Vec<Incident>,
    pub rates: Rates,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queue {
    pub name: String,
    pub waiting: i64,
    pub held: i64,
    pub reserved: i64,
    pub consumers: i64,
    pub oldest: Option<f64>,
    pub paused: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Worker {
    pub name: String,
    pub online: bool,
    pub active: Option<i64>,
    pub slots: Option<i64>,
    pub processed: Option<i64>,
    pub load: Option<f64>,
    pub queues: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Incident {
    pub kind: String,
    pub subject: String,
    pub since: String,
    pub detail: String,
    pub by: Option<String>,
}

/// Per second, over the last minutes, with accepted tasks minute by minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    pub accepted: f64,
    pub succeeded: f64,
    pub failed: f64,
    pub trend: Vec<u64>,
}

impl Facts {
    /// # Errors
    /// When one of the requests fails.
    pub async fn read(client: &Client) -> Result<Self, Failure> {
        let queues = list(client, "/v1/queues", "queues").await?;
        let workers = list(client, "/v1/workers", "workers").await?;
        let incidents = list(client, "/v1/incidents", "incidents").await?;
        let points = list(client, "/v1/stats/throughput?step=60", "points").await?;
        let mut facts = Self {
            queues: queues.iter().map(queue).collect(),
            workers: workers.iter().map(worker).collect(),
            incidents: incidents.iter().map(|found| incident(found, client)).collect(),
            rates: rates(&points),
        };
        facts.queues.sort_by(|a, b| (b.waiting + b.held).cmp(&(a.waiting + a.held)).then(a.name.cmp(&b.name)));
        facts.workers.sort_by(|a, b| b.online.cmp(&a.online).then(a.name.cmp(&b.name)));
        Ok(facts)
    }
}

async fn list(client: &Client, path: &str, member: &str) -> Result<Vec<Value>, Failure> {
    let answer = client.get(path).await?;
    let found = answer.member(member);
    Ok(found.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default())
}

fn text(value: &Value) -> String {
    super::super::show::shown(value.as_str().unwrap_or_default())
}

fn queue(value: &Value) -> Queue {
    let number = |name: &str| value[name].as_i64().unwrap_or(0);
    Queue {
        name: text(&value["name"]),
        waiting: number("waiting"),
        held: number("held"),
        reserved: number("reserved"),
        consumers: number("consumers"),
        oldest: value["oldest_seconds"].as_f64(),
        paused: value["paused"] == true,
    }
}

fn worker(value: &Value) -> Worker {
    let queues = value["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
    Worker {
        name: text(&value["hostname"]),
        online: value["status"] == "online",
        active: value["active"].as_i64(),
        slots: value["concurrency"].as_i64(),
        processed: value["processed"].as_i64(),
        load: value["load"][0].as_f64(),
        queues: queues.iter().map(text).collect::<Vec<_>>().join(","),
    }
}

fn incident(value: &Value, client: &Client) -> Incident {
    Incident {
        kind: text(&value["kind"]),
        subject: text(&value["subject"]),
        since: client.when(&value["since"]),
        detail: text(&value["detail"]),
        by: value["acknowledged_by"].as_str().map(|_| text(&value["acknowledged_by"])),
    }
}

/// The current minute is not complete, and is left out.
fn rates(points: &[Value]) -> Rates {
    let whole = &points[..points.len().saturating_sub(1)];
    let last = &whole[whole.len().saturating_sub(MINUTES)..];
    let per_second = |names: &[&str]| {
        let sum: i64 = last.iter().flat_map(|point| names.iter().filter_map(|name| point[*name].as_i64())).sum();
        sum as f64 / (60.0 * last.len().max(1) as f64)
    };
    let trend = points.iter().map(|point| point["accepted"].as_u64().unwrap_or(0)).collect();
    Rates {
        accepted: per_second(&["accepted"]),
        succeeded: per_second(&["succeeded"]),
        failed: per_second(&["failed", "lost"]),
        trend,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_of_whole_minutes() {
        let points = [json!({"accepted": 600, "succeeded": 60, "failed": 30, "lost": 30}), json!({"accepted": 7})];
        let rates = rates(&points);
        assert_eq!((rates.accepted, rates.succeeded, rates.failed), (10.0, 1.0, 1.0));
        assert_eq!(rates.trend, [600, 7]);
    }

    #[test]
    fn a_worker_that_tells_nothing_is_shown_all_the_same() {
        let read = worker(&json!({"hostname": "a\u{1b}[31m", "status": "online", "queues": ["x", "y"]}));
        assert_eq!((read.name.as_str(), read.active, read.queues.as_str()), ("a?[31m", None, "x,y"));
    }
}
