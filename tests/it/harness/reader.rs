//! A reader of one task's events that goes on at another gateway whenever its connection breaks.

use std::time::Duration;

use super::{Http, http};

/// Follows one task by whichever gateway is next, from the last id that it saw, until `end`.
pub struct Reader {
    gateways: Vec<Http>,
    at: usize,
    id: String,
    seen: Vec<u64>,
}

impl Reader {
    /// Begins at the gateway with this index.
    pub fn new(gateways: &[Http], at: usize, id: &str) -> Self {
        Self { gateways: gateways.to_vec(), at, id: id.to_owned(), seen: Vec::new() }
    }

    /// Returns all ids in the order they came, once the task has ended.
    pub async fn follow(mut self) -> Vec<u64> {
        let client = http::client().pool_max_idle_per_host(0).build().expect("a client");
        while !self.read(&client).await {
            self.at += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.seen
    }

    /// True at the end of the task; false when the connection broke.
    async fn read(&mut self, client: &reqwest::Client) -> bool {
        let base = &self.gateways[self.at % self.gateways.len()].base;
        let last = self.seen.last().copied().unwrap_or(0).to_string();
        let request = client.get(format!("{base}/v1/tasks/{}/events", self.id));
        let asked = tokio::time::timeout(Duration::from_secs(5), request.header("last-event-id", last).send());
        let Ok(Ok(mut response)) = asked.await else { return false };
        if response.status() != 200 {
            return response.status() == 204;
        }
        let mut bytes = Vec::new();
        // A gateway that is stopped sends no comments either: then the next one is asked.
        while let Ok(Ok(Some(more))) = tokio::time::timeout(Duration::from_secs(30), response.chunk()).await {
            bytes.extend_from_slice(&more);
            while let Some(end) = bytes.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = bytes.drain(..end + 2).collect();
                if self.take(&String::from_utf8_lossy(&block)) {
                    return true;
                }
            }
        }
        false
    }

    fn take(&mut self, block: &str) -> bool {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            self.seen.push(id.parse().expect("a number"));
        }
        field("event: ") == Some("end")
    }
}
