//! Restricts the targets of webhooks: private addresses are refused, unless the configuration allows them.
//!
//! A name is judged by the addresses that it resolves to, and the connection goes to exactly these, so a name that resolves
//! differently a moment later is no way around the check. Redirects are not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::config;

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is {address}, which is not a public address; webhooks.allow or webhooks.allow_private permits it")]
pub struct Refused {
    pub host: String,
    pub address: IpAddr,
}

/// Refuses a URL whose host is a forbidden address. A name is judged when it is resolved.
///
/// # Errors
/// When the address is private.
pub fn check_literal(config: &config::Webhooks, url: &str) -> Result<(), Refused> {
    // Parsed with the client's own URL parser, which also understands addresses written as numbers.
    let Ok(url) = reqwest::Url::parse(url) else { return Ok(()) };
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if !is_allowed(config, host, address) => Err(Refused { host: host.to_owned(), address }),
        _ => Ok(()),
    }
}

/// Ports of line-based services, which could mistake a request's head for commands, and other ports that are never HTTP.
const OTHER_PORTS: [u16; 24] = [
    0, 19, 21, 22, 23, 25, 53, 110, 119, 139, 143, 389, 445, 465, 587, 993, 995, 2049, 5432, 6379, 6667, 9300, 11_211,
    27_017,
];
/// Timeout of the DNS lookup at registration; without an answer the name is accepted.
const LOOKUP: Duration = Duration::from_secs(2);
/// The system's look-ups at a time: each has a thread until it ends, and nothing can stop one.
static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(8)));

/// Judges a URL when it is registered: its address, port and zone, and what its name resolves to now. A name that does not resolve now
/// may resolve later, and is judged again at each connection.
///
/// # Errors
/// The reason, as a sentence.
pub async fn judge(config: &config::Webhooks, url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|_| "is no URL whose host is a name or an address".to_owned())?;
    check_literal(config, url).map_err(|refused| refused.to_string())?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let is_named = config.allow_private || config.allow.iter().any(|allowed| allowed.names(&host));
    let port = parsed.port_or_known_default().unwrap_or(0);
    if !is_named && OTHER_PORTS.contains(&port) {
        return Err(format!("port {port} belongs to another service than HTTP; webhooks.allow permits its host"));
    }
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if !is_named && is_this_machine(&host) {
        return Err(format!("{host} is this machine; webhooks.allow or webhooks.allow_private permits it"));
    }
    let Some(addresses) = addresses_of(&host, port).await else { return Ok(()) };
    match addresses.first() {
        Some(first) if !addresses.iter().any(|address| is_allowed(config, &host, *address)) => {
            Err(Refused { host, address: *first }.to_string())
        }
        _ => Ok(()),
    }
}

/// The addresses of a host. `None` if the name is unknown, or the system does not answer in time.
async fn addresses_of(host: &str, port: u16) -> Option<Vec<IpAddr>> {
    let place = (host.to_owned(), port);
    let looking = async {
        let permit = Arc::clone(&LOOKUPS).acquire_owned().await.ok()?;
        let asked = tokio::task::spawn_blocking(move || {
            // Held until the look-up ends, which may be long after the timeout.
            let _permit = permit;
            place.to_socket_addrs().map(|all| all.map(|address| address.ip()).collect())
        });
        asked.await.ok()?.ok()
    };
    tokio::time::timeout(LOOKUP, looking).await.ok().flatten()
}

/// Whether a name always means loopback, whatever a name server says (RFC 6761).
fn is_this_machine(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn is_allowed(config: &config::Webhooks, host: &str, address: IpAddr) -> bool {
    config.allow_private
        || is_public(address)
        || config.allow.iter().any(|allowed| allowed.names(host) || allowed.holds(address))
}

/// The system's resolver, which drops private addresses.
pub struct Guard(pub Arc<config::Webhooks>);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let config = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let first = found.first().copied();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| is_allowed(&config, &host, address.ip())).collect();
            match (allowed.is_empty(), first) {
                (true, Some(address)) => Err(Refused { host, address: address.ip() }.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address is routable on the public internet.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4 addresses embedded for translation or tunnels.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Unspecified, loopback, and IPv4-mapped addresses.
        [0, 0, 0, 0, 0, 0, ..] => false,
        [0x2001, 0xdb8, ..] => false,
        // Only global unicast addresses remain.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    fn webhooks(toml: &str) -> config::Webhooks {
        Config::parse(Role::Dev, toml).unwrap().webhooks
    }

    #[test]
    fn nothing_inside_of_the_network_is_public() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::7f00:1",
            "2001:db8::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_refused_however_it_is_written() {
        let strict = webhooks("");
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]:80/",
            "http://0/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(check_literal(&strict, url).is_err(), "{url}");
        }
        assert!(check_literal(&strict, "https://8.8.8.8/").is_ok());
        assert!(check_literal(&webhooks("webhooks.allow_private = true"), "http://127.0.0.1/").is_ok());
        assert!(check_literal(&webhooks("webhooks.allow = [\"127.0.0.0/8\"]"), "http://127.1.2.3/").is_ok());
    }

    #[tokio::test]
    async fn a_name_is_judged_by_its_addresses() {
        let guard = |toml: &str| Guard(Arc::new(webhooks(toml)));
        let resolve = async |guard: Guard| guard.resolve("localhost".parse().unwrap()).await.map(Iterator::count);
        assert!(resolve(guard("")).await.is_err_and(|error| error.to_string().contains("allow_private")));
        assert!(resolve(guard("webhooks.allow = [\"localhost\"]")).await.is_ok_and(|count| count > 0));
    }
}
