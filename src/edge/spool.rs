//! Spools an answer before it is sent, in constant memory: a small one stays in memory, the rest goes to a temporary file that is
//! unlinked before it is written, so that it does not outlive the process.

use std::io;

use axum::body::{Body, Bytes};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tokio_stream::iter;
use tokio_util::io::ReaderStream;

use runtime::clock;

/// How much is kept in memory: some ten thousand verdicts.
const MEMORY: usize = 1 << 20;

#[derive(Default)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    /// # Errors
    /// When the folder for temporary files cannot be written to.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.memory.extend_from_slice(bytes);
        if self.memory.len() <= MEMORY {
            return Ok(());
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => nameless().await?,
        };
        file.write_all(&self.memory).await?;
        self.file = Some(file);
        self.memory.clear();
        Ok(())
    }

    /// The body: `head`, everything that was written, `tail`.
    ///
    /// # Errors
    /// When the file cannot be read again.
    pub async fn into_body(self, head: Bytes, tail: Bytes) -> io::Result<Body> {
        let Self { memory, file } = self;
        let end = iter([Ok::<_, io::Error>(Bytes::from(memory)), Ok(tail)]);
        let Some(mut file) = file else {
            return Ok(Body::from_stream(iter([Ok(head)]).chain(end)));
        };
        file.flush().await?;
        file.rewind().await?;
        Ok(Body::from_stream(iter([Ok(head)]).chain(ReaderStream::with_capacity(file, 64 << 10)).chain(end)))
    }
}

async fn nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("taskgate-{}", clock::random_id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).await?;
    tokio::fs::remove_file(&path).await?;
    Ok(file)
}
