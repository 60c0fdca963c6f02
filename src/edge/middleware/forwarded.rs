//! Finds the client behind proxies: forwarding headers count only from proxies in `http.trusted_proxies`.
//!
//! Each proxy appends the address that called it. So the list is read from the right, as long as the proxy that added the entry is
//! trusted; the first address that is not trusted is the client's.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, header};

use crate::config::Network;
use crate::edge::state::Edge;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: SocketAddr,
    pub is_tls: bool,
}

/// The client behind the proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// `None` without a connection (in tests).
    pub address: Option<IpAddr>,
    pub is_https: bool,
    /// The host that the client asked the proxy for; `None`: see `Host`.
    pub host: Option<String>,
}

/// Adds the client to the request's extensions.
pub fn note(edge: &Edge, request: &mut Request) {
    let peer = request.extensions().get::<Peer>().copied();
    let client = peer.map_or_else(Client::default, |peer| client(&edge.http.trusted_proxies, peer, request.headers()));
    request.extensions_mut().insert(client);
}

fn client(trusted: &[Network], peer: Peer, headers: &HeaderMap) -> Client {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = Client { address: Some(peer.address.ip().to_canonical()), is_https: peer.is_tls, host: None };
    if !client.address.is_some_and(is_trusted) {
        return client;
    }
    let mut said = hops(headers);
    while client.address.is_some_and(is_trusted) {
        let Some(hop) = said.pop() else { break };
        client.is_https = hop.proto.map_or(client.is_https, |proto| proto.eq_ignore_ascii_case("https"));
        client.host = hop.host.or(client.host);
        match hop.address {
            Some(address) => client.address = Some(address),
            None => break,
        }
    }
    client
}

/// What one proxy reports of its caller.
#[derive(Debug, Default)]
struct Hop {
    address: Option<IpAddr>,
    proto: Option<String>,
    host: Option<String>,
}

/// The hops in the order of the headers, the nearest proxy last. `Forwarded` (RFC 7239) takes precedence over the older headers.
fn hops(headers: &HeaderMap) -> Vec<Hop> {
    let forwarded = values(headers, header::FORWARDED.as_str());
    if !forwarded.is_empty() {
        return forwarded.iter().map(|element| standard(element)).collect();
    }
    let addresses = values(headers, "x-forwarded-for");
    let (mut protos, mut hosts) = (values(headers, "x-forwarded-proto"), values(headers, "x-forwarded-host"));
    let mut hops: Vec<Hop> = addresses.iter().map(|text| Hop { address: address(text), ..Hop::default() }).collect();
    if hops.is_empty() && !(protos.is_empty() && hosts.is_empty()) {
        hops.push(Hop::default());
    }
    // Usually there is a single value, which is the nearest proxy's.
    for hop in hops.iter_mut().rev() {
        (hop.proto, hop.host) = (protos.pop(), hosts.pop());
    }
    hops
}

/// All values of a list header, in order.
fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

fn standard(element: &str) -> Hop {
    let mut hop = Hop::default();
    for (name, value) in element.split(';').filter_map(|pair| pair.trim().split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = address(value),
            "proto" => hop.proto = Some(value.to_owned()),
            "host" => hop.host = Some(value.to_owned()),
            _ => {}
        }
    }
    hop
}

/// Parses `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`; `None` for anything else (`unknown`, `_hidden`).
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(inside, _)| inside);
    bare.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, headers: &[(&'static str, &str)]) -> Client {
        let trusted: Vec<Network> = ["10.0.0.0/8", "::1"].iter().map(|text| text.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let peer = Peer { address: SocketAddr::new(peer.parse().unwrap(), 1), is_tls: false };
        client(&trusted, peer, &map)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let said = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example")];
        assert_eq!(seen("9.9.9.9", &said), Client { address: ip("9.9.9.9"), is_https: false, host: None });
    }

    #[test]
    fn the_first_address_that_is_not_a_trusted_proxy_is_the_client() {
        let said = [("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2"), ("x-forwarded-proto", "https")];
        let client = seen("10.0.0.1", &said);
        assert_eq!((client.address, client.is_https), (ip("1.1.1.1"), true));
        assert_eq!(seen("10.0.0.1", &[]).address, ip("10.0.0.1"));
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "unknown")]).address, ip("10.0.0.1"));
    }

    #[test]
    fn the_standard_header_is_read_before_the_older_ones() {
        let said = [
            ("forwarded", "for=\"[2001:db8::1]:4711\";proto=https;host=gate.example, for=10.0.0.2"),
            ("x-forwarded-for", "6.6.6.6"),
        ];
        let client = seen("::1", &said);
        assert_eq!(client.address, ip("2001:db8::1"));
        assert_eq!((client.is_https, client.host.as_deref()), (true, Some("gate.example")));
    }
}
