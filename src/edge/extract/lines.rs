//! A body of lines (`application/x-ndjson`), of which each is a JSON text: read in chunks that are bounded in number and
//! bytes. A line that is too long is refused and skipped; the lines after it are read.

use axum::body::{Body, BodyDataStream};
use tokio_stream::StreamExt;

use super::json_text;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

/// Items that are committed together: a few commits of the ledger.
pub const CHUNK_ITEMS: usize = 4_000;
/// Bytes of a chunk, reached at most by one item of the largest size more.
const CHUNK_BYTES: usize = 4 << 20;

/// A line, or what is wrong with it.
pub type Item = Result<String, Problem>;

/// The lines of a body, in chunks.
pub struct Lines {
    body: BodyDataStream,
    edge: Edge,
    rest: Vec<u8>,
    /// What was read of `rest`.
    at: usize,
    ended: bool,
    /// The rest of a line that is too long is dropped.
    skipping: bool,
}

impl Lines {
    pub fn new(body: Body, edge: &Edge) -> Self {
        Self {
            body: body.into_data_stream(),
            edge: edge.clone(),
            rest: Vec::new(),
            at: 0,
            ended: false,
            skipping: false,
        }
    }

    /// All lines, which may have as many bytes as a body.
    pub async fn all(&mut self) -> Result<Vec<Item>, Problem> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(items);
            }
            bytes += chunk.iter().flatten().map(String::len).sum::<usize>();
            if bytes > self.edge.limits.body {
                return Err(too_long(self.edge.limits.body));
            }
            items.extend(chunk);
        }
    }

    /// The next items; empty at the end.
    pub async fn chunk(&mut self) -> Result<Vec<Item>, Problem> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < CHUNK_ITEMS && bytes < CHUNK_BYTES {
            let Some(item) = self.next().await? else { break };
            bytes += item.as_ref().map_or(0, String::len);
            items.push(item);
        }
        Ok(items)
    }

    async fn next(&mut self) -> Result<Option<Item>, Problem> {
        let mut seen = self.at;
        loop {
            if let Some(end) = self.rest[seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.rest[self.at..seen + end].to_vec();
                self.at = seen + end + 1;
                seen = self.at;
                if let Some(item) = self.item(line) {
                    return Ok(Some(item));
                }
                continue;
            }
            if self.ended {
                let line = self.rest.split_off(self.at);
                (self.rest, self.at) = (Vec::new(), 0);
                return Ok(self.item(line));
            }
            self.rest.drain(..self.at);
            self.at = 0;
            let limit = self.edge.limits.body;
            if self.skipping || self.rest.len() > limit {
                let was_skipping = std::mem::replace(&mut self.skipping, true);
                self.rest.clear();
                if !was_skipping {
                    return Ok(Some(Err(too_long(limit))));
                }
            }
            seen = self.rest.len();
            self.read().await?;
        }
    }

    fn item(&mut self, line: Vec<u8>) -> Option<Item> {
        if std::mem::take(&mut self.skipping) || line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        if line.len() > self.edge.limits.body {
            return Some(Err(too_long(self.edge.limits.body)));
        }
        Some(json_text(line, &self.edge.limits))
    }

    async fn read(&mut self) -> Result<(), Problem> {
        match tokio::time::timeout(self.edge.http.request_timeout, self.body.next()).await {
            Ok(Some(Ok(data))) => self.rest.extend_from_slice(&data),
            Ok(None) => self.ended = true,
            Ok(Some(Err(error))) => {
                return Err(Problem::new(&slugs::INVALID_JSON)
                    .detail("the body did not arrive whole")
                    .caused_by(error));
            }
            Err(_) => return Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
        }
        Ok(())
    }
}

fn too_long(limit: usize) -> Problem {
    Problem::new(&slugs::PAYLOAD_TOO_LARGE).detail(format!("there are more than {limit} bytes"))
}
