//! A private rabbitmq-server: node, port mapper, data and ports belong to this run, and nothing of them survives it.
//!
//! One node takes ten seconds to start, so tests share one, each with a virtual host of its own ([`Rabbit::shared`]); who kills,
//! restarts or starves a node starts one for itself ([`Rabbit::start`]).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::process::{Process, folder};
use super::{ports, wait};

/// Where distributions put the program itself; the command on the PATH changes to another user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// How long a node may take to start: it needs five seconds of the processor, which a crowded machine gives it in minutes.
const BOOT: Duration = Duration::from_secs(300);
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// A node name that needs no name server.
const USER: &str = "guest";
/// How often a channel looks for messages that were not acknowledged within `consumer_timeout`, in milliseconds; usually once a minute.
const TICKS: &str = "[{rabbit, [{channel_tick_interval, 500}]}].\n";
/// Erlang without idle spinning: two processor cores serve all tests.
const ERLANG: &str = "-noinput +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";

/// Which broker an environment runs on.
#[derive(Clone, Copy, Default)]
pub enum On {
    #[default]
    Redis,
    /// A virtual host of its own on the node that tests share.
    Rabbit,
    /// A node of its own, with this added to its `rabbitmq.conf`.
    OwnRabbit(&'static str),
}

/// A running node, or one that was killed.
pub struct Node {
    server: Process,
    /// Erlang's port mapper. It would stay for ever if the node started it.
    _mapper: Process,
    directory: PathBuf,
    pub port: u16,
    management: u16,
    distribution: u16,
    mapper_port: u16,
}

/// A virtual host of a node: what one test sees of it.
pub struct Rabbit {
    node: Held,
    pub vhost: String,
}

enum Held {
    Shared(&'static Node),
    Own(Box<Node>),
}

impl Rabbit {
    pub fn of(broker: On) -> Option<Self> {
        match broker {
            On::Redis => None,
            On::Rabbit => Some(Self::shared()),
            On::OwnRabbit(config) => Some(Self::start(config)),
        }
    }

    /// A new virtual host on the node of this run.
    pub fn shared() -> Self {
        static NODE: OnceLock<Node> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let node = NODE.get_or_init(|| Node::start(""));
        let vhost = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        node.make_vhost(&vhost);
        Self { node: Held::Shared(node), vhost }
    }

    /// A node of the test's own; `config` is added to its `rabbitmq.conf`.
    pub fn start(config: &str) -> Self {
        let node = Node::start(config);
        node.make_vhost("test");
        Self { node: Held::Own(Box::new(node)), vhost: "test".into() }
    }

    pub fn node(&self) -> &Node {
        match &self.node {
            Held::Shared(node) => node,
            Held::Own(node) => node,
        }
    }

    /// # Panics
    /// When other tests use the node too.
    pub fn node_mut(&mut self) -> &mut Node {
        match &mut self.node {
            Held::Shared(_) => panic!("a shared node is not to be hurt"),
            Held::Own(node) => node,
        }
    }

    pub fn url(&self) -> String {
        self.node().url(&self.vhost)
    }

    pub fn management_url(&self) -> String {
        format!("http://{USER}:{USER}@127.0.0.1:{}", self.node().management)
    }

    /// Messages that wait in a queue, first served first, left where they are.
    pub fn messages(&self, queue: &str) -> Vec<Value> {
        let path = format!("/api/queues/{}/{queue}/get", self.vhost);
        let wish = json!({"count": 1_000, "ackmode": "ack_requeue_true", "encoding": "auto"});
        match self.node().ask("POST", &path, Some(&wish)) {
            (200, Value::Array(messages)) => messages,
            (404, _) => Vec::new(),
            (status, body) => panic!("{path}: {status} {body}"),
        }
    }

    /// Declares a durable queue with these arguments.
    pub fn declare(&self, queue: &str, arguments: &Value) {
        let path = format!("/api/queues/{}/{queue}", self.vhost);
        self.node().must("PUT", &path, Some(&json!({"durable": true, "arguments": arguments})));
    }

    /// The server's description of a queue; `None` when there is none.
    pub fn queue(&self, queue: &str) -> Option<Value> {
        let (status, body) = self.node().ask("GET", &format!("/api/queues/{}/{queue}", self.vhost), None);
        (status == 200).then_some(body)
    }

    pub fn delete(&self, queue: &str) {
        self.node().must("DELETE", &format!("/api/queues/{}/{queue}", self.vhost), None);
    }

    /// Closes all connections of this virtual host whose client calls itself so, once the server lists them.
    pub fn cut_connections(&self, client: &str) {
        let cut = wait::blocking(wait::DEADLINE, "the server lists the connections", || {
            let (_, connections) = self.node().ask("GET", "/api/connections", None);
            let mine = |one: &&Value| {
                let name = one["client_properties"]["connection_name"].as_str().unwrap_or_default();
                one["vhost"] == self.vhost.as_str() && name.starts_with(client)
            };
            let names = connections.as_array()?.iter().filter(mine).filter_map(|one| one["name"].as_str());
            let names: Vec<String> = names.map(str::to_owned).collect();
            (!names.is_empty()).then_some(names)
        });
        for name in cut {
            let path = format!("/api/connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
            self.node().ask("DELETE", &path, None);
        }
    }
}

impl Node {
    fn start(config: &str) -> Self {
        let directory = folder("rabbitmq");
        std::fs::create_dir(directory.join("home")).expect("the folder is ours");
        let [port, management, distribution, mapper_port] = std::array::from_fn(|_| ports::free());
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             collect_statistics_interval = 1000\nlog.console = true\nlog.console.level = warning\n{config}\n"
        );
        std::fs::write(directory.join("rabbitmq.conf"), settings).expect("the folder is ours");
        std::fs::write(directory.join("advanced.config"), TICKS).expect("the folder is ours");
        std::fs::write(directory.join("plugins"), "[rabbitmq_management].\n").expect("the folder is ours");
        let mut mapper = Command::new("epmd");
        mapper.args(["-address", "127.0.0.1", "-port"]).arg(mapper_port.to_string());
        let mapper = Process::start("epmd", mapper);
        let server = Process::start("rabbitmq", server(&directory, port, distribution, mapper_port));
        let this = Self { server, _mapper: mapper, directory, port, management, distribution, mapper_port };
        this.wait_until_ready();
        this
    }

    pub fn url(&self, vhost: &str) -> String {
        format!("amqp://{USER}:{USER}@127.0.0.1:{}/{vhost}", self.port)
    }

    /// Kills the node by SIGKILL, as in a power cut.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same ports, with the data it had.
    pub fn restart(&mut self) {
        self.server.kill();
        self.relaunch();
        self.wait_until_ready();
    }

    /// As [`Node::restart`], without waiting.
    pub fn relaunch(&mut self) {
        let command = server(&self.directory, self.port, self.distribution, self.mapper_port);
        self.server = Process::start("rabbitmq", command);
    }

    /// Stops answering without closing a connection, until [`Node::resume`].
    pub fn pause(&self) {
        self.server.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.server.signal(libc::SIGCONT);
    }

    pub fn wait_until_ready(&self) {
        wait::blocking(BOOT, "rabbitmq-server answers", || {
            let (status, _) = self.try_ask("GET", "/api/overview", None)?;
            (status == 200 && TcpStream::connect(("127.0.0.1", self.port)).is_ok()).then_some(())
        });
    }

    /// `rabbitmqctl` with these words.
    pub fn control(&self, words: &[&str]) {
        let mut command = Command::new(CONTROL);
        command.args(words);
        self.environment(&mut command);
        let done = command.output().expect("rabbitmqctl comes with the server");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn environment(&self, command: &mut Command) {
        environment(command, &self.directory, self.port, self.distribution, self.mapper_port);
    }

    fn make_vhost(&self, vhost: &str) {
        self.must("PUT", &format!("/api/vhosts/{vhost}"), None);
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.must("PUT", &format!("/api/permissions/{vhost}/{USER}"), Some(&all));
    }

    pub fn must(&self, method: &str, path: &str, body: Option<&Value>) {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    }

    /// One call to the management API.
    ///
    /// # Panics
    /// When it is away.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_ask(method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.management)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let user = STANDARD.encode(format!("{USER}:{USER}"));
        // Of HTTP 1.0 an answer ends with its connection, and is in one piece.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nAuthorization: Basic {user}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).unwrap_or(Value::Null)))
    }
}

fn server(directory: &Path, port: u16, distribution: u16, mapper: u16) -> Command {
    let mut command = Command::new(SERVER);
    environment(&mut command, directory, port, distribution, mapper);
    // The shell becomes the server instead of watching over it, so that a signal meets the server itself.
    command.env("RABBITMQ_ALLOW_INPUT", "1").env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG);
    command
}

fn environment(command: &mut Command, directory: &Path, port: u16, distribution: u16, mapper: u16) {
    command
        .env("HOME", directory.join("home"))
        .env("RABBITMQ_NODENAME", format!("taskgate{port}@localhost"))
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", mapper.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_MNESIA_BASE", directory.join("data"))
        .env("RABBITMQ_LOG_BASE", directory.join("log"))
        .env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", directory.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("plugins"))
        .env("RABBITMQ_PID_FILE", directory.join("pid"));
}
