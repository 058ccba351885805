//! The address at which peers reach this worker: --advertise, else the interface that the user
//! chose for Gloo or NCCL, else the one on the route to the coordinator.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::agent::connect::Coordinator;
use crate::trainer::setup::Announced;

/// Finds the address.
///
/// # Errors
/// A message: the requested address is not one of this machine.
pub(crate) async fn announced(
    asked: Option<&str>,
    coordinator: &Coordinator,
) -> Result<Announced, String> {
    if let Some(host) = asked {
        return resolve(host).await;
    }
    let chosen = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let variables = ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"];
    for (name, text) in variables
        .iter()
        .filter_map(|name| Some((name, chosen(name)?)))
    {
        let interfaces = if_addrs::get_if_addrs()
            .map_err(|error| format!("cannot list this machine's interfaces: {error}"))?;
        let interfaces = interfaces.iter().map(|i| (i.name.as_str(), i.ip()));
        let Some(wanted) = wanted(&text) else {
            continue;
        };
        let ip = address_on(&wanted, interfaces)
            .ok_or_else(|| format!("{name} is `{text}`, but no such interface has an address"))?;
        let host = Some(in_front_of_a_port(ip));
        return Ok(Announced { ip, host });
    }
    let ip = on_the_way_to(coordinator).await;
    Ok(Announced { ip, host: None })
}

/// The interface of the address that the user announces, for NCCL, which otherwise chooses one
/// itself. None for a loopback address: NCCL needs no network then.
///
/// It may ask a name server, and starts no thread.
pub fn interface(announced: Option<&str>) -> Option<String> {
    let host = announced?.trim_matches(['[', ']']);
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|a| a.ip()).collect();
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let interfaces: Vec<_> = interfaces
        .into_iter()
        .map(|i| (i.name.clone(), i.ip()))
        .collect();
    interface_with(&found, &interfaces)
}

/// Of the first address that this machine has, as [`resolve`] chooses it.
fn interface_with(announced: &[IpAddr], interfaces: &[(String, IpAddr)]) -> Option<String> {
    let on = |ip: &IpAddr| interfaces.iter().find(|(_, on)| on == ip);
    let (name, ip) = announced.iter().find_map(on)?;
    (!ip.is_loopback()).then(|| name.clone())
}

async fn resolve(host: &str) -> Result<Announced, String> {
    let bare = host.trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((bare, 0))
        .await
        .map_err(|error| format!("--advertise {host}: {error}"))?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let ours = found.iter().find(|ip| UdpSocket::bind((**ip, 0)).is_ok());
    let Some(ip) = ours.copied() else {
        return Err(format!(
            "--advertise {host} is {found:?}, which is no address of this machine: peers could \
             not connect to this worker"
        ));
    };
    let host = match bare.parse::<IpAddr>() {
        Ok(ip) => in_front_of_a_port(ip),
        Err(_) => bare.to_owned(),
    };
    let host = Some(host);
    Ok(Announced { ip, host })
}

/// The first interface that a list of Gloo or NCCL names; none where NCCL's excludes some.
fn wanted(list: &str) -> Option<String> {
    let first = list.split(',').next().unwrap_or_default().trim();
    (!first.starts_with('^')).then(|| first.trim_start_matches('=').to_owned())
}

/// The exact name goes before one that only begins so, as NCCL allows, and IPv4 before IPv6.
fn address_on<'a>(
    wanted: &str,
    interfaces: impl Iterator<Item = (&'a str, IpAddr)> + Clone,
) -> Option<IpAddr> {
    let of = |fits: fn(&str, &str) -> bool| {
        let found = interfaces.clone().filter(|(name, _)| fits(name, wanted));
        found.map(|(_, ip)| ip).min_by_key(IpAddr::is_ipv6)
    };
    of(|name, wanted| name == wanted).or_else(|| of(|name, wanted| name.starts_with(wanted)))
}

fn in_front_of_a_port(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The address of this machine on the route to the coordinator, where its peers reach it too.
async fn on_the_way_to(coordinator: &Coordinator) -> IpAddr {
    let route = async {
        let peer = coordinator.address().await?;
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket sends nothing; it only asks the routing table.
        let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect(peer).await.ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    route.await.unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_chosen_as_gloo_and_nccl_are_told() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let interfaces = [
            ("lo", ip("127.0.0.1")),
            ("eth10", ip("10.0.0.10")),
            ("eth1", ip("fe80::1")),
            ("eth1", ip("10.0.0.1")),
            ("ib0", ip("fd00::7")),
        ];
        let on = |list: &str| address_on(&wanted(list)?, interfaces.into_iter());
        assert_eq!(on("eth1"), Some(ip("10.0.0.1")));
        assert_eq!(on("=eth10,eth1"), Some(ip("10.0.0.10")));
        assert_eq!(on("ib"), Some(ip("fd00::7")));
        assert_eq!(on("wlan"), None);
        assert_eq!(wanted("^docker,lo"), None);
        assert_eq!(in_front_of_a_port(ip("fd00::7")), "[fd00::7]");
    }

    #[test]
    fn nccl_is_told_the_interface_of_an_announced_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let interfaces = [
            ("lo", "127.0.0.1"),
            ("eth1", "10.0.0.1"),
            ("ib0", "fd00::7"),
        ];
        let interfaces = interfaces.map(|(name, on)| (name.to_owned(), ip(on)));
        let with = |announced: &str| interface_with(&[ip("192.0.2.1"), ip(announced)], &interfaces);
        let both = interface_with(&[ip("fd00::7"), ip("10.0.0.1")], &interfaces);
        assert_eq!(both.as_deref(), Some("ib0"));
        assert_eq!(with("10.0.0.1").as_deref(), Some("eth1"));
        assert_eq!(with("fd00::7").as_deref(), Some("ib0"));
        assert_eq!(with("127.0.0.1"), None);
        assert_eq!(with("10.0.0.2"), None);
        assert_eq!(interface(None), None);
    }

    #[tokio::test]
    async fn only_addresses_of_this_machine_are_announced() {
        let named = resolve("localhost").await.unwrap();
        assert!(named.ip.is_loopback());
        assert_eq!(named.host.as_deref(), Some("localhost"));
        // RFC 5737: an address for documentation, which no machine has.
        let error = resolve("192.0.2.1").await.unwrap_err();
        assert!(error.contains("no address of this machine"), "{error}");
    }
}
