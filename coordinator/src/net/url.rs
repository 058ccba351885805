//! Addresses as URLs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The URL under which workers of this machine reach a listener, `scheme` being `http` or
/// `https`; one on all addresses is reached through loopback.
#[must_use]
pub fn local_url(scheme: &str, listening: SocketAddr) -> String {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(ip, listening.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_through_loopback() {
        for (listening, url) in [
            ("0.0.0.0:70", "http://127.0.0.1:70"),
            ("[::]:70", "http://[::1]:70"),
            ("10.0.0.3:70", "http://10.0.0.3:70"),
        ] {
            assert_eq!(local_url("http", listening.parse().unwrap()), url);
        }
    }
}
