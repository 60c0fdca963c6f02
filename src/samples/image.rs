//! `tasks.analyze_image`: looks at an uploaded picture. It gets the picture's address, so it runs wherever that can be read.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use taskgate_worker::{Context, PROGRESS, Registry, TaskError};

/// The size of a picture is said at its beginning.
const HEAD: usize = 64 << 10;

#[derive(Deserialize)]
struct Picture {
    url: String,
    name: String,
}

#[derive(Serialize)]
struct Analysis {
    name: String,
    /// `png`, `gif`, `jpeg`; null for another one.
    format: Option<&'static str>,
    width: Option<u32>,
    height: Option<u32>,
    bytes: u64,
    sha256: String,
}

/// What is known of the bytes so far.
#[derive(Default)]
struct Seen {
    head: Vec<u8>,
    bytes: u64,
    hash: Sha256,
}

pub(super) fn register(registry: &mut Registry, client: reqwest::Client) {
    registry.task("tasks.analyze_image", move |context: Context, picture: Picture| {
        let client = client.clone();
        async move { analyze(&context, &client, picture).await }
    });
}

async fn analyze(context: &Context, client: &reqwest::Client, picture: Picture) -> Result<Analysis, TaskError> {
    let stage = async |number: usize, name: &str| {
        context.update_state(PROGRESS, json!({"progress": number, "total": 2, "message": name})).await
    };
    stage(1, "read").await?;
    let seen = read(client, &picture.url).await?;
    stage(2, "measure").await?;
    let (format, size) = measured(&seen.head);
    Ok(Analysis {
        name: picture.name,
        format,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        bytes: seen.bytes,
        sha256: seen.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

async fn read(client: &reqwest::Client, url: &str) -> Result<Seen, TaskError> {
    let mut seen = Seen::default();
    if let Some(path) = url.strip_prefix("file://") {
        let mut file = tokio::fs::File::open(path).await?;
        let mut part = vec![0; HEAD];
        loop {
            match file.read(&mut part).await? {
                0 => return Ok(seen),
                count => seen.add(&part[..count]),
            }
        }
    }
    let mut answer = client.get(url).send().await?.error_for_status()?;
    while let Some(part) = answer.chunk().await? {
        seen.add(&part);
    }
    Ok(seen)
}

impl Seen {
    fn add(&mut self, part: &[u8]) {
        let missing = HEAD.saturating_sub(self.head.len()).min(part.len());
        self.head.extend_from_slice(&part[..missing]);
        self.bytes += part.len() as u64;
        self.hash.update(part);
    }
}

/// Format, and width and height where the head says them.
fn measured(head: &[u8]) -> (Option<&'static str>, Option<(u32, u32)>) {
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        let number = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
        return (Some("png"), number(16).zip(number(20)));
    }
    if head.starts_with(b"GIF8") {
        let number = |at: usize| Some(u32::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)));
        return (Some("gif"), number(6).zip(number(8)));
    }
    if head.starts_with(b"\xff\xd8\xff") { (Some("jpeg"), frame(head)) } else { (None, None) }
}

/// The first frame of a JPEG says its height, then its width.
fn frame(head: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from(u16::from_be_bytes(head.get(at..at + 2)?.try_into().ok()?)));
    let mut at = 2;
    loop {
        let marker = *head.get(at + 1)?;
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return number(at + 7).zip(number(at + 5));
        }
        at += 2 + usize::try_from(number(at + 2)?).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_says_its_size_at_its_beginning() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02";
        assert_eq!(measured(png), (Some("png"), Some((3, 2))));
        assert_eq!(measured(b"GIF89a\x05\0\x04\0"), (Some("gif"), Some((5, 4))));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\0\x07\0\x09";
        assert_eq!(measured(jpeg), (Some("jpeg"), Some((9, 7))));
        assert_eq!(measured(b"\x89PNG\r\n\x1a\n"), (Some("png"), None));
        assert_eq!(measured(b"%PDF"), (None, None));
    }
}
