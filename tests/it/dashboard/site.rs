//! A notice board that serves its pages one by one, when the test releases them, so that a crawl continues only after the test has looked.

use std::sync::Arc;

use taskgate::dev::notice_boards;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub struct Site {
    pub url: String,
    pages: Arc<Semaphore>,
    serving: tokio::task::JoinHandle<()>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/sample-site", listener.local_addr().expect("bound above"));
        let pages = Arc::new(Semaphore::new(0));
        let given = Arc::clone(&pages);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&given)));
            }
        });
        Self { url, pages, serving }
    }

    /// Releases one page; the request for the next one waits.
    pub fn gives_a_page(&self) {
        self.pages.add_permits(1);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request for `/sample-site/{board}/{number}`.
async fn serve(stream: TcpStream, pages: Arc<Semaphore>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or_default() == 0 {
            return;
        }
    }
    pages.acquire().await.expect("nobody closes it").forget();
    let path = head.split(' ').nth(1).expect("a path");
    let mut parts = path.rsplit('/');
    let number = parts.next().and_then(|number| number.parse().ok()).expect("a number");
    let page = notice_boards::page(parts.next().expect("a board"), number).expect("a page of the board");
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}
