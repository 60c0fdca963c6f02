//! A receiver of webhooks: keeps the requests, answers as configured, and counts concurrent requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use taskgate::tell::webhooks::signature;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A secret that every test may use: `whsec_` and 24 bytes.
pub const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// One request.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Received {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a payload is JSON")
    }

    /// Whether one of its signatures was made with this secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp = self.headers["webhook-timestamp"].parse().expect("a number");
        let expected = signature(&[secret], self.id(), timestamp, &self.body);
        self.headers["webhook-signature"].split(' ').any(|one| one == expected)
    }
}

/// How to answer the request of this number, counted from 0.
type Script = dyn Fn(usize) -> (u16, Duration) + Send + Sync;

#[derive(Default)]
struct Log {
    received: Vec<Received>,
    open: usize,
    most: usize,
}

pub struct Receiver {
    pub url: String,
    log: Arc<Mutex<Log>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Answers everything with 204.
    pub async fn start() -> Self {
        Self::answering(|_| (204, Duration::ZERO)).await
    }

    pub async fn answering(script: impl Fn(usize) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound above"));
        let log = Arc::<Mutex<Log>>::default();
        let (script, shared): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&log));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), Arc::clone(&script)));
            }
        });
        Self { url, log, serving }
    }

    pub fn received(&self) -> Vec<Received> {
        self.log.lock().expect("no panic under it").received.clone()
    }

    /// The requests about one task.
    pub fn of_task(&self, id: &str) -> Vec<Received> {
        self.received().into_iter().filter(|one| one.json()["data"]["task_id"] == id).collect()
    }

    /// Most requests at the same time.
    pub fn most(&self) -> usize {
        self.log.lock().expect("no panic under it").most
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, log: Arc<Mutex<Log>>, script: Arc<Script>) {
    let mut stream = BufReader::new(stream);
    while let Some(received) = read(&mut stream).await {
        let number = {
            let mut log = log.lock().expect("no panic under it");
            log.open += 1;
            log.most = log.most.max(log.open);
            log.received.push(received);
            log.received.len() - 1
        };
        let (status, delay) = script(number);
        tokio::time::sleep(delay).await;
        log.lock().expect("no panic under it").open -= 1;
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut headers = HashMap::new();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { headers, body: String::from_utf8(body).ok()? })
}
