//! Who sends a request: the other end of the connection, or whom a proxy that is trusted names.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that a request counts for. Of `X-Forwarded-For` counts what trusted proxies have added: the last address that is
/// none of theirs. What stands before it may be made up.
pub(super) fn of(connection: SocketAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.contains(&address.to_canonical());
    let mut peer = connection.ip().to_canonical();
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut named = lines.iter().flat_map(|line| line.split(',')).rev();
    while is_trusted(&peer) {
        let Some(Ok(next)) = named.next().map(|text| text.trim().parse::<IpAddr>()) else { break };
        peer = next.to_canonical();
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_names_another() {
        let proxies = ["127.0.0.1", "192.0.2.9"].map(|address| address.parse().unwrap());
        for (connection, forwarded, trusted, expected) in [
            ("198.51.100.1:9", &["203.0.113.1"][..], &proxies[..], "198.51.100.1"),
            ("127.0.0.1:9", &["203.0.113.1"], &[], "127.0.0.1"),
            ("127.0.0.1:9", &["203.0.113.1"], &proxies, "203.0.113.1"),
            ("[::ffff:127.0.0.1]:9", &["203.0.113.1"], &proxies, "203.0.113.1"),
            // What the client made up stands before what the proxy added.
            ("127.0.0.1:9", &["10.9.9.9, 203.0.113.1"], &proxies, "203.0.113.1"),
            ("127.0.0.1:9", &["10.9.9.9", "203.0.113.1,192.0.2.9"], &proxies, "203.0.113.1"),
            ("127.0.0.1:9", &[], &proxies, "127.0.0.1"),
            ("127.0.0.1:9", &["unknown"], &proxies, "127.0.0.1"),
            ("127.0.0.1:9", &["203.0.113.1, unknown"], &proxies, "127.0.0.1"),
            ("127.0.0.1:9", &["127.0.0.1"], &proxies, "127.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let peer = of(connection.parse().unwrap(), &headers, trusted);
            assert_eq!(peer.to_string(), expected, "{connection} {forwarded:?}");
        }
    }
}
