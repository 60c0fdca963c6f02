//! The input and output of a command: the call on standard input, progress and the result on standard output, and the tail of
//! standard error.

use std::sync::Mutex;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tracing::{debug, warn};

use super::share::TooMuch;
use crate::context::{Context, PROGRESS};
use celery::json;
use celery::task::Json;
use celery::task_log::LONGEST_LINE;

/// The longest line that is read; a longer line is not a result.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// The log level of a line on standard error.
const LEVEL: &str = "ERROR";
/// How much of standard error a failure shows.
pub(super) const TAIL_BYTES: usize = 4 << 10;

/// The output of the process so far.
pub(super) struct Said {
    pub result: Option<Json>,
    errors: Vec<u8>,
    /// How many bytes it may still write.
    left: u64,
    most: u64,
}

impl Said {
    pub fn new(most: u64) -> Self {
        Self { result: None, errors: Vec::new(), left: most, most }
    }

    /// Counts bytes read from either output.
    fn count(&mut self, bytes: usize) -> Result<(), TooMuch> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(TooMuch::Output { bytes: self.most }),
        }
    }

    /// The tail of standard error.
    pub fn tail(&self) -> String {
        let start = self.errors.len().saturating_sub(TAIL_BYTES);
        String::from_utf8_lossy(&self.errors[start..]).into_owned()
    }
}

/// Writes the input of the process and reads both outputs to their end. Ends early when the process writes too much.
pub(super) fn talk<'a>(
    context: &'a Context,
    said: &'a Mutex<Said>,
    child: &mut Child,
) -> impl Future<Output = Option<TooMuch>> + use<'a> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = call(context);
    async move {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program need not read its input.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            Ok(())
        };
        let read = async {
            match stdout {
                Some(stdout) => listen(context, said, stdout).await,
                None => Ok(()),
            }
        };
        let errors = async {
            match stderr {
                Some(stderr) => keep_tail(said, stderr, |line| logged(context, line)).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(write, read, errors).err()
    }
}

/// Adds a line to the task's log; whether it takes another.
fn logged(context: &Context, line: &str) -> bool {
    context.log(LEVEL, line);
    !context.log_has_ended()
}

/// `{"id", "task", "args", "kwargs", "retries"}` and a line break.
fn call(context: &Context) -> String {
    let mut out = String::from("{\"id\": ");
    json::push_string(&mut out, context.id().as_str());
    out.push_str(", \"task\": ");
    json::push_string(&mut out, context.task());
    out.push_str(&format!(", \"retries\": {}, \"args\": ", context.retries()));
    out.extend([context.args().get(), ", \"kwargs\": ", context.kwargs().get(), "}\n"]);
    out
}

/// Reads standard output to its end: reports progress, keeps the last other JSON line.
async fn listen(context: &Context, said: &Mutex<Said>, output: impl AsyncRead + Unpin) -> Result<(), TooMuch> {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = match (&mut output).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => read,
        };
        said.lock().expect("nothing panics under this lock").count(read)?;
        let Ok(value) = serde_json::from_slice::<Json>(line.trim_ascii()) else {
            debug!(task.id = %context.id(), "{} printed a line that is not JSON", context.id());
            continue;
        };
        match progress(&value) {
            Some(meta) => drop(context.update_state(PROGRESS, meta).await),
            None => said.lock().expect("nothing panics under this lock").result = Some(value),
        }
    }
}

/// The meta of a progress line: the value of `progress` if that is an object, else the whole line.
fn progress(value: &RawValue) -> Option<Value> {
    let fields = json::Fields::parse(value.get()).ok()?;
    let progress = fields.get("progress")?;
    let meta = if progress.get().starts_with('{') { progress.get() } else { value.get() };
    serde_json::from_str(meta).ok()
}

/// As much as a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads to the end and keeps at least the last [`TAIL_BYTES`]. `log` takes a line, and says whether it wants another.
async fn keep_tail(
    said: &Mutex<Said>,
    mut output: impl AsyncRead + Unpin,
    log: impl Fn(&str) -> bool,
) -> Result<(), TooMuch> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut lines = Lines::default();
    loop {
        let count = match output.read(&mut chunk).await {
            Ok(0) => {
                lines.end(&log);
                return Ok(());
            }
            Ok(count) => count,
            Err(error) => {
                warn!(error = %error, "the error output of a command was lost: {error}");
                return Ok(());
            }
        };
        lines.take(&chunk[..count], &log);
        let mut said = said.lock().expect("nothing panics under this lock");
        said.count(count)?;
        said.errors.extend_from_slice(&chunk[..count]);
        if said.errors.len() > 2 * TAIL_BYTES {
            let old = said.errors.len() - TAIL_BYTES;
            said.errors.drain(..old);
        }
    }
}

/// Cuts an output into lines for the task's log, until the log takes no more.
#[derive(Default)]
struct Lines {
    /// The line that has not ended.
    open: Vec<u8>,
    is_over: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], log: &impl Fn(&str) -> bool) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_over {
                return;
            }
            // The rest of a line that is too long for a log is dropped.
            let room = (4 * LONGEST_LINE).saturating_sub(self.open.len());
            self.open.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end(log);
            }
        }
    }

    /// Ends a line, at a line break or at the end of the output.
    fn end(&mut self, log: &impl Fn(&str) -> bool) {
        if !self.open.is_empty() && !self.is_over {
            self.is_over = !log(String::from_utf8_lossy(self.open.trim_ascii_end()).as_ref());
            self.open.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Json {
        json::verbatim(text.to_owned()).unwrap()
    }

    #[test]
    fn a_progress_line_says_how_far_it_is() {
        assert_eq!(progress(&raw(r#"{"progress": {"done": 1}}"#)), Some(serde_json::json!({"done": 1})));
        assert_eq!(
            progress(&raw(r#"{"progress": 1, "total": 3}"#)),
            Some(serde_json::json!({"progress": 1, "total": 3}))
        );
        assert_eq!(progress(&raw(r#"{"result": 1}"#)), None);
        assert_eq!(progress(&raw("3")), None);
    }

    #[tokio::test]
    async fn only_the_end_of_the_error_output_is_kept() {
        let text = "x".repeat(100_000) + "the end";
        let said = Mutex::new(Said::new(1 << 20));
        assert!(keep_tail(&said, text.as_bytes(), |_| true).await.is_ok());
        let tail = said.lock().unwrap().tail();
        assert!(tail.len() <= TAIL_BYTES && tail.ends_with("the end"));
    }

    #[test]
    fn a_log_that_takes_no_more_is_asked_no_more() {
        let asked = Mutex::new(Vec::new());
        let log = |line: &str| {
            let mut asked = asked.lock().unwrap();
            asked.push(line.to_owned());
            asked.len() < 2
        };
        let mut lines = Lines::default();
        lines.take(b"one\ntwo\nthree\nfo", &log);
        lines.take(b"ur\n", &log);
        lines.end(&log);
        assert_eq!(*asked.lock().unwrap(), ["one", "two"]);
    }

    #[tokio::test]
    async fn too_much_output_is_an_end() {
        let said = Mutex::new(Said::new(1_000));
        let text = "x".repeat(5_000);
        assert_eq!(keep_tail(&said, text.as_bytes(), |_| true).await, Err(TooMuch::Output { bytes: 1_000 }));
    }

    #[tokio::test]
    async fn the_error_output_is_cut_into_lines() {
        let logged = Mutex::new(Vec::new());
        let said = Mutex::new(Said::new(1 << 20));
        let text = format!("one\n\ntwo\r\n{}\nlast", "x".repeat(100_000));
        let log = |line: &str| {
            logged.lock().unwrap().push(line.to_owned());
            true
        };
        keep_tail(&said, text.as_bytes(), log).await.unwrap();
        let logged = logged.into_inner().unwrap();
        assert_eq!(
            (logged.len(), logged[0].as_str(), logged[2].as_str(), logged[4].as_str()),
            (5, "one", "two", "last")
        );
        assert_eq!(logged[3].len(), 4 * LONGEST_LINE);
    }
}
