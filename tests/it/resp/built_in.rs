//! The built-in server on a free port, for one test.

use std::thread::JoinHandle;

use resp::Server;
use tokio_util::sync::CancellationToken;

pub struct BuiltIn {
    pub port: u16,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl BuiltIn {
    pub fn start() -> Self {
        let stop = CancellationToken::new();
        let (tell, told) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
                tell.send(server.local_addr().port()).expect("the test listens");
                server.run(stopped).await.expect("the server ends well");
            });
        });
        let port = told.recv().expect("the server starts");
        Self { port, stop, thread: Some(thread) }
    }

    pub fn url(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// Waits for the end.
    pub fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }
}

impl Drop for BuiltIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
