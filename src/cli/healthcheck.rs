//! `taskgate healthcheck`: `GET /livez` of the gateway on this machine, for containers that have no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::Common;
use super::given::configure;
use crate::config::Role;

const PATIENCE: Duration = Duration::from_secs(2);

/// # Errors
/// When the gateway does not answer, or answers with an error.
pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let config = configure(Role::Check, common, &[])?;
    let address = reachable(config.http.listen);
    let status = status(address)?;
    if status == "200" {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("http://{address}/livez was answered {status}")
}

/// A gateway that listens on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn status(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer)?;
    let head = String::from_utf8_lossy(&answer);
    Ok(head.split(' ').nth(1).unwrap_or("nothing").to_owned())
}
