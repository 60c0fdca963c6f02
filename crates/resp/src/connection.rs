//! One client's socket: bytes in, commands executed, bytes out.
//!
//! Reading goes on while answers wait to be written, because a client may send a long pipeline before it reads its first answer. From a
//! client that is blocked, or has not read its answers, only a bounded amount is read, which also slows it down.

use std::{io, rc::Rc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep_until,
};

use super::{
    client::{Client, Ending},
    engine::Engine,
    failure::message,
    protocol::Parser,
    reply::Reply,
};

const READ_AT_LEAST: usize = 16 * 1024;
const READ_AT_MOST: usize = 1024 * 1024;
/// With more unread output than this, no more commands of the client are executed.
const OUTPUT_PAUSE: usize = 256 * 1024 * 1024;
/// Input kept for a client that is blocked or paused.
const INPUT_PAUSE: usize = 1024 * 1024;
/// The capacity that an empty buffer may keep.
const IDLE_BUFFER: usize = 64 * 1024;
/// How long a client has to read its last answer.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves a client until either side ends. Whatever happens, the engine forgets the client afterwards.
pub async fn serve(engine: Rc<Engine>, client: Rc<Client>, socket: TcpStream) {
    let forget = Forget { engine: Rc::clone(&engine), client: Rc::clone(&client) };
    if let Err(error) = Connection::new(engine, client, socket).run().await {
        tracing::debug!(client.id = forget.client.id, %error, "lost client {}", forget.client.id);
    }
}

/// Cleans up even if the connection's future is dropped or panics.
struct Forget {
    engine: Rc<Engine>,
    client: Rc<Client>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.engine.disconnect(&self.client);
    }
}

struct Connection {
    engine: Rc<Engine>,
    client: Rc<Client>,
    socket: TcpStream,
    parser: Parser,
    input: BytesMut,
    output: BytesMut,
}

impl Connection {
    fn new(engine: Rc<Engine>, client: Rc<Client>, socket: TcpStream) -> Self {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { engine, client, socket, parser: Parser::default(), input, output }
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            self.execute_all();
            self.collect_output();
            match self.client.ending.get() {
                Ending::Now => return Ok(()),
                Ending::AfterFlush => return self.say_farewell().await,
                Ending::Open => {}
            }
            if !self.step().await? {
                return Ok(());
            }
        }
    }

    /// Executes what has arrived, until the client blocks or ends.
    fn execute_all(&mut self) {
        while self.may_execute() {
            match self.parser.next(&mut self.input) {
                Ok(Some(args)) => self.engine.execute(&self.client, &args),
                Ok(None) => return,
                Err(malformed) => {
                    self.client.answer(&Reply::from(message(format!("ERR Protocol error: {malformed}"))));
                    self.client.close(Ending::AfterFlush);
                }
            }
        }
    }

    fn may_execute(&self) -> bool {
        self.client.blocked.get().is_none() && self.client.ending.get() == Ending::Open && !self.is_behind()
    }

    fn is_behind(&self) -> bool {
        self.output.len() + self.client.outbox.borrow().len() > OUTPUT_PAUSE
    }

    fn collect_output(&mut self) {
        let mut outbox = self.client.outbox.borrow_mut();
        if self.output.is_empty() {
            std::mem::swap(&mut self.output, &mut *outbox);
        }
        for buffer in [&mut self.output, &mut *outbox, &mut self.input] {
            if buffer.is_empty() && buffer.capacity() > IDLE_BUFFER {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Waits for one thing to happen; false when the client has hung up.
    ///
    /// # Cancel safety
    /// Each branch either does its work or leaves the buffers as they are.
    async fn step(&mut self) -> io::Result<bool> {
        let may_read = self.may_execute() || self.input.len() < INPUT_PAUSE;
        if may_read {
            let wanted = self.parser.wanted(self.input.len()).clamp(READ_AT_LEAST, READ_AT_MOST);
            self.input.reserve(wanted);
        }
        let until = self.client.blocked_until.get();
        let (mut reader, mut writer) = self.socket.split();
        tokio::select! {
            biased;
            written = writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                if written? == 0 {
                    return Ok(false);
                }
            }
            read = reader.read_buf(&mut self.input), if may_read => return Ok(read? > 0),
            () = self.client.woken() => {}
            () = at(until) => self.engine.time_out(&self.client),
        }
        Ok(true)
    }

    async fn say_farewell(mut self) -> io::Result<()> {
        let outbox = self.client.outbox.take();
        let write = async {
            self.socket.write_all(&self.output).await?;
            self.socket.write_all(&outbox).await?;
            self.socket.shutdown().await
        };
        tokio::time::timeout(FAREWELL, write).await.unwrap_or(Ok(()))
    }
}

/// Completes at this time; never for `None`.
async fn at(moment: Option<std::time::Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
