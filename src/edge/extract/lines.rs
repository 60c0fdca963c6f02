//! A body of lines (`application/x-ndjson`), each a JSON text, read in chunks of bounded number and size. A line that is too long is
//! refused and skipped; the lines after it are read. A line that does not end within `limits.drain` bytes or within
//! `http.request_timeout` ends the request.

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::HeaderMap;
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::body::{checked, too_large, unfit};
use super::packed::Coding;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use runtime::heavy;

/// Items that are committed together: a few commits of the ledger.
pub const CHUNK_ITEMS: usize = 4_000;
/// Bytes of a chunk. The last item may exceed it by one item's maximum size.
const CHUNK_BYTES: usize = 4 << 20;

/// A line, or the problem with it.
pub type Item = Result<String, Problem>;

/// The lines of a body, in chunks.
pub struct Lines {
    body: BodyDataStream,
    coding: Coding,
    /// Received bytes that are not unpacked yet.
    pending: Bytes,
    edge: Edge,
    rest: Vec<u8>,
    /// How much of `rest` has been searched.
    at: usize,
    ended: bool,
    /// Bytes dropped so far of a line that is too long.
    skipped: Option<usize>,
    /// When the current line began to arrive.
    since: Option<Instant>,
}

impl Lines {
    /// # Errors
    /// When the body has an unknown encoding.
    pub fn new(body: Body, headers: &HeaderMap, edge: &Edge) -> Result<Self, Problem> {
        Ok(Self {
            body: body.into_data_stream(),
            coding: Coding::of(headers, edge.limits.drain)?,
            pending: Bytes::new(),
            edge: edge.clone(),
            rest: Vec::new(),
            at: 0,
            ended: false,
            skipped: None,
            since: None,
        })
    }

    /// All lines, which together may be as large as a body.
    pub async fn all(&mut self) -> Result<Vec<Item>, Problem> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(items);
            }
            bytes += chunk.iter().flatten().map(String::len).sum::<usize>();
            if bytes > self.edge.limits.body {
                return Err(too_large(self.edge.limits.body));
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
                if let Some(item) = self.item(line).await {
                    return Ok(Some(item));
                }
                continue;
            }
            if self.ended {
                let line = self.rest.split_off(self.at);
                (self.rest, self.at) = (Vec::new(), 0);
                return Ok(self.item(line).await);
            }
            self.rest.drain(..self.at);
            self.at = 0;
            if self.skipped.is_some() || self.rest.len() > self.edge.limits.body {
                let was_skipping = self.skipped.is_some();
                self.skip()?;
                if !was_skipping {
                    return Ok(Some(Err(too_large(self.edge.limits.body))));
                }
            }
            seen = self.rest.len();
            self.read().await?;
        }
    }

    /// Drops the received part of a line that is too long, up to `limits.drain`.
    fn skip(&mut self) -> Result<(), Problem> {
        let skipped = self.skipped.unwrap_or(0) + self.rest.len();
        self.rest.clear();
        self.skipped = Some(skipped);
        if skipped <= self.edge.limits.drain {
            return Ok(());
        }
        let detail = format!("a line has more than {} bytes and does not end", self.edge.limits.drain);
        Err(Problem::new(&slugs::PAYLOAD_TOO_LARGE).detail(detail))
    }

    async fn item(&mut self, line: Vec<u8>) -> Option<Item> {
        self.since = None;
        if self.skipped.take().is_some() || line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        if line.len() > self.edge.limits.body {
            return Some(Err(too_large(self.edge.limits.body)));
        }
        let (depth, width) = (self.edge.limits.depth, self.edge.limits.width);
        Some(heavy::run(line.len(), move || checked(line, depth, width)).await)
    }

    /// Reads the next bytes. All reads of one line share its timeout.
    async fn read(&mut self) -> Result<(), Problem> {
        if self.pending.is_empty() {
            let since = *self.since.get_or_insert_with(Instant::now);
            let next = tokio::time::timeout_at(since + self.edge.http.request_timeout, self.body.next()).await;
            match next {
                Ok(Some(Ok(data))) => self.pending = data,
                Ok(None) => {
                    self.ended = true;
                    return self.coding.end(&mut self.rest).map_err(|misfit| unfit(&misfit, self.edge.limits.body));
                }
                Ok(Some(Err(error))) => {
                    return Err(Problem::new(&slugs::INVALID_JSON)
                        .detail("the body did not arrive whole")
                        .caused_by(error));
                }
                Err(_) => return Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
            }
        }
        let part = self.coding.slice(&mut self.pending);
        self.coding.unpack(&part, &mut self.rest).map_err(|misfit| unfit(&misfit, self.edge.limits.body))?;
        self.coding.breathe().await;
        Ok(())
    }
}
