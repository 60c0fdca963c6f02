//! A form with a file (`multipart/form-data`): the file goes into its store while it arrives, the other parts become the fields of a
//! request body.
//!
//! In memory are one part of the file, at most [`MOST_TEXT`] of the fields and at most [`MOST_HEAD`] of a part's head. Size and type are
//! checked while it streams. If anything fails afterwards, the file is removed; after a crash the sweep removes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::header;
use futures_util::Stream;
use metrics::counter;
use multer::{Field, Multipart};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::catalog::{Entry, FILE_HEAD, FileFacts, Upload};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::stores::{Incoming, Store, StoredFile};
use runtime::clock;

/// The most bytes of all fields of a form together.
const MOST_TEXT: usize = 1 << 20;
/// The most fields of a form.
const MOST_FIELDS: usize = 200;
/// The most bytes before a part's head must end: some frames of the connection.
const MOST_HEAD: usize = 1 << 20;
/// The most time for a whole form.
const LONGEST: Duration = Duration::from_hours(1);

/// The data of a form.
pub struct Received {
    /// The fields as a JSON object.
    pub body: String,
    /// The data of the file for templates, JSON text by name.
    pub told: Vec<(String, String)>,
    /// Distinguishes this request from another one with the same fields; empty unless requested.
    pub digest: String,
    /// A file that belongs to no task yet.
    pub file: StoredFile,
}

/// A file that has arrived.
struct Arrived {
    file: StoredFile,
    name: String,
    kind: String,
    size: u64,
    digest: String,
}

/// Reads the whole form. `digested`: repetitions of the request must be distinguished from other requests.
pub async fn receive(
    edge: &Edge,
    entry: &Entry,
    upload: &Upload,
    request: Request,
    digested: bool,
) -> Result<Received, Problem> {
    let boundary = boundary(&request)?;
    check_length(&request, upload)?;
    let store = edge.gateway.store(&upload.store).ok_or_else(|| Problem::new(&slugs::INTERNAL))?;
    let (body, heads) = Paced::new(request.into_body().into_data_stream());
    let reader = Reader { edge, entry, upload, store, digested, heads };
    let mut file = None;
    let outcome = tokio::time::timeout(LONGEST, reader.read(Multipart::new(body, boundary), &mut file)).await;
    let fields = outcome.unwrap_or_else(|_| Err(Problem::new(&slugs::REQUEST_TIMEOUT)));
    match (fields, file) {
        (Ok(fields), Some(arrived)) => told(entry, upload, fields, arrived).await,
        (Ok(_), None) => Err(misfit(&upload.field, "is required: the file")),
        (Err(problem), arrived) => {
            if let Some(arrived) = arrived {
                arrived.file.discard().await;
            }
            Err(problem)
        }
    }
}

async fn told(
    entry: &Entry,
    upload: &Upload,
    fields: Map<String, Value>,
    arrived: Arrived,
) -> Result<Received, Problem> {
    let Arrived { file, name, kind, size, digest } = arrived;
    let url = if entry.wants_address() { Some(file.address().await) } else { None };
    let url = match url.transpose() {
        Ok(url) => url,
        Err(error) => {
            file.discard().await;
            return Err(error.into());
        }
    };
    let facts = FileFacts { key: &file.key, url: url.as_deref(), name: &name, size, kind: &kind };
    let told = upload.told(&facts);
    counter!("taskgate_files_received_total").increment(1);
    Ok(Received { body: Value::Object(fields).to_string(), told, digest, file })
}

struct Reader<'a> {
    edge: &'a Edge,
    entry: &'a Entry,
    upload: &'a Upload,
    store: &'a Store,
    digested: bool,
    heads: Heads,
}

impl Reader<'_> {
    /// Reads the fields; the file goes to `file` as soon as it arrives.
    async fn read(&self, mut form: Multipart<'_>, file: &mut Option<Arrived>) -> Result<Map<String, Value>, Problem> {
        let (mut fields, mut text_left) = (Map::new(), MOST_TEXT);
        loop {
            self.heads.limit();
            let Some(field) = self.in_time(form.next_field()).await? else { return Ok(fields) };
            self.heads.free();
            let name = field.name().unwrap_or_default().to_owned();
            if name == self.upload.field && file.is_none() {
                *file = Some(self.store_file(field).await?);
            } else if fields.len() >= MOST_FIELDS || fields.contains_key(&name) || name == self.upload.field {
                return Err(misfit(&name, "stands twice, or is one field too many"));
            } else {
                let text = self.text_of(field, &mut text_left).await?;
                fields.insert(name.clone(), typed(self.entry, &name, text));
            }
        }
    }

    async fn store_file(&self, mut field: Field<'_>) -> Result<Arrived, Problem> {
        let name = field.file_name().unwrap_or_default().to_owned();
        let declared = field.content_type().map(|kind| kind.essence_str().to_owned()).unwrap_or_default();
        // Before anything is written: most files that are refused are refused by this.
        let mut head = Vec::new();
        while head.len() < FILE_HEAD {
            let Some(bytes) = self.in_time(field.chunk()).await? else { break };
            head.extend_from_slice(&bytes);
        }
        let kind = self.upload.judge(&declared, &head).map_err(|detail| unfit(&self.upload.field, &detail))?;
        let id = clock::random_id().to_string();
        let mut incoming = self.store.begin(&id, &name, self.edge.http.request_timeout).await?;
        let mut hash = self.digested.then(Sha256::new);
        if let Err(problem) = self.fill(head.into(), &mut field, &mut incoming, &mut hash).await {
            incoming.abort().await;
            return Err(problem);
        }
        let size = incoming.size();
        let file = incoming.finish().await?;
        let digest = hash.map(|hash| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(Arrived { file, name, kind, size, digest: digest.unwrap_or_default() })
    }

    async fn fill(
        &self,
        head: Bytes,
        field: &mut Field<'_>,
        incoming: &mut Incoming,
        hash: &mut Option<Sha256>,
    ) -> Result<(), Problem> {
        let mut next = Some(head);
        while let Some(bytes) = next {
            if incoming.size() + bytes.len() as u64 > self.upload.max {
                return Err(too_large(self.upload));
            }
            if let Some(hash) = hash {
                hash.update(&bytes);
            }
            incoming.write(&bytes).await?;
            next = self.in_time(field.chunk()).await?;
        }
        Ok(())
    }

    async fn text_of(&self, mut field: Field<'_>, left: &mut usize) -> Result<String, Problem> {
        let too_much = || {
            let detail = format!("the fields of the form have more than {MOST_TEXT} bytes");
            Problem::new(&slugs::PAYLOAD_TOO_LARGE).detail(detail)
        };
        *left = left.checked_sub(field.name().map_or(0, str::len)).ok_or_else(too_much)?;
        let mut text = Vec::new();
        while let Some(bytes) = self.in_time(field.chunk()).await? {
            *left = left.checked_sub(bytes.len()).ok_or_else(too_much)?;
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).map_err(|_| misfit(field.name().unwrap_or_default(), "is not UTF-8"))
    }

    /// Each piece of the form has the time of a request.
    async fn in_time<T>(&self, next: impl Future<Output = multer::Result<T>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.edge.http.request_timeout, next).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Problem::new(&slugs::INVALID_REQUEST)
                .detail("the form cannot be read, or did not arrive whole")
                .caused_by(error)),
            Err(_) => Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
        }
    }
}

/// A form has texts only: what the schema calls something else is read as JSON.
fn typed(entry: &Entry, name: &str, text: String) -> Value {
    let kind = entry.body.as_ref().and_then(|body| body.schema.get("properties")?.get(name)?.get("type")?.as_str());
    match kind {
        None | Some("string") => Value::String(text),
        Some(_) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

fn boundary(request: &Request) -> Result<String, Problem> {
    let unfit = |detail: &'static str| Problem::new(&slugs::UNSUPPORTED_MEDIA_TYPE).detail(detail);
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(unfit("a form with a file is taken without Content-Encoding"));
    }
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    multer::parse_boundary(given).map_err(|_| unfit("the file is sent as a form: multipart/form-data with a boundary"))
}

/// What is announced to be too large is not read at all.
fn check_length(request: &Request, upload: &Upload) -> Result<(), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let most = upload.max + (MOST_TEXT + MOST_HEAD) as u64;
    if length.is_some_and(|length: u64| length > most) { Err(too_large(upload)) } else { Ok(()) }
}

fn too_large(upload: &Upload) -> Problem {
    let detail = format!("has more than {} bytes", upload.max);
    placed(Problem::new(&slugs::PAYLOAD_TOO_LARGE), &upload.field, &detail)
}

fn unfit(field: &str, detail: &str) -> Problem {
    placed(Problem::new(&slugs::UNSUPPORTED_MEDIA_TYPE), field, detail)
}

fn misfit(field: &str, detail: &str) -> Problem {
    placed(Problem::new(&slugs::INVALID_REQUEST), field, detail)
}

fn placed(problem: Problem, field: &str, detail: &str) -> Problem {
    let pointer = format!("/{}", field.replace('~', "~0").replace('/', "~1"));
    problem.detail(format!("{pointer}: {detail}")).error(pointer, detail)
}

/// How many bytes may still arrive while a part's head is read. Shared with the body that counts them.
struct Heads(Arc<AtomicUsize>);

impl Heads {
    fn limit(&self) {
        self.0.store(MOST_HEAD, Ordering::Relaxed);
    }

    fn free(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }
}

/// A body that gives a piece at a time: the reader of forms takes all that is ready, and a fast sender always has more.
struct Paced {
    inner: BodyDataStream,
    gave: bool,
    left: Arc<AtomicUsize>,
}

impl Paced {
    fn new(inner: BodyDataStream) -> (Self, Heads) {
        let left = Arc::new(AtomicUsize::new(MOST_HEAD));
        (Self { inner, gave: false, left: Arc::clone(&left) }, Heads(left))
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.gave) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.inner).poll_next(cx);
        self.gave = matches!(next, Poll::Ready(Some(_)));
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            let left = self.left.load(Ordering::Relaxed);
            let Some(rest) = left.checked_sub(bytes.len()) else {
                return Poll::Ready(Some(Err(axum::Error::new("the head of a part does not end"))));
            };
            if left != usize::MAX {
                self.left.store(rest, Ordering::Relaxed);
            }
        }
        next
    }
}
