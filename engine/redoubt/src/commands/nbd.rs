//! How NBD clients find an export: its URI.

use redoubt_ports::Endpoint;
use serde::{Deserialize, Serialize};

/// One export, as a command announces it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) volume: String,
    pub(crate) uri: String,
}

/// Returns the NBD URI of an export; the empty name is the default export.
pub(crate) fn uri(endpoint: &Endpoint, export: &str) -> String {
    match endpoint {
        Endpoint::Tcp(host, port) if host.contains(':') => format!("nbd://[{host}]:{port}/{export}"),
        Endpoint::Tcp(host, port) => format!("nbd://{host}:{port}/{export}"),
        Endpoint::Unix(path) => format!("nbd+unix:///{export}?socket={}", escaped(path)),
    }
}

/// Escapes what has a meaning in the query of a URI.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~:@".contains(&byte);
    let one = |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_those_that_other_clients_read() {
        let shown = |text: &str| uri(&text.parse().unwrap(), "erp");
        assert_eq!(shown("unix:/tmp/a b.sock"), "nbd+unix:///erp?socket=/tmp/a%20b.sock");
        assert_eq!(shown("tcp:127.0.0.1:10809"), "nbd://127.0.0.1:10809/erp");
        assert_eq!(shown("tcp:[::1]:10809"), "nbd://[::1]:10809/erp");
    }
}
