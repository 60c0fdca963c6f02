//! Debian's PgBouncer in front of a cluster, with its default settings: it ignores no startup parameters.

use std::fs;
use std::process::Command;

use super::postgres::Cluster;
use super::process::{Process, folder};
use super::{ports, postgres, wait};

/// Fewer than the clients have, so that transactions take turns on them.
const SERVER_CONNECTIONS: u16 = 4;

pub struct PgBouncer {
    process: Process,
    port: u16,
}

impl PgBouncer {
    /// `mode` as in `pool_mode`; `more` are further lines of its configuration.
    pub fn start(cluster: &Cluster, mode: &str, more: &str) -> Self {
        let (directory, port) = (folder("pgbouncer"), ports::free());
        let size = if mode == "session" { 60 } else { SERVER_CONNECTIONS };
        let file = directory.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 200\n{more}\n",
            cluster.port(),
        );
        fs::write(&file, text).expect("the folder is writable");
        let program =
            if fs::exists("/usr/sbin/pgbouncer").unwrap_or(false) { "/usr/sbin/pgbouncer" } else { "pgbouncer" };
        let mut command = Command::new(program);
        command.arg(&file);
        let this = Self { process: Process::start("pgbouncer", postgres::demoted(command)), port };
        wait::blocking(wait::DEADLINE, "PgBouncer listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
        this
    }

    /// The same database, through the pooler.
    pub fn url(&self, direct: &str) -> String {
        let database = direct.rsplit('/').next().expect("a URL has a path");
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}
