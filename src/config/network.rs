//! Values that name peers and places of the network.

use super::units::by_text;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address that only this machine reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddress(SocketAddr);

impl LoopbackAddress {
    /// 127.0.0.1 with this port; 0 lets the system choose.
    pub fn port(port: u16) -> LoopbackAddress {
        LoopbackAddress(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for LoopbackAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<LoopbackAddress, String> {
        let address: SocketAddr =
            text.parse().map_err(|_| format!("`{text}` is not an address with a port, such as \"127.0.0.1:9117\""))?;
        if address.ip().is_loopback() {
            Ok(LoopbackAddress(address))
        } else {
            Err(format!("`{text}` is not a loopback address; other machines get `http.remote`, with TLS and a token"))
        }
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where to listen, if anywhere: an empty text is nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Listen, String> {
        match text {
            "" => Ok(Listen(None)),
            _ => text
                .parse()
                .map(|address| Listen(Some(address)))
                .map_err(|_| format!("`{text}` is not an address with a port, such as \"0.0.0.0:11112\"")),
        }
    }
}

/// Where a web service is: `https://pacs.example/dicom-web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAddress {
    https: bool,
    host: String,
    port: u16,
    path: String,
}

impl WebAddress {
    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Name or address; an IPv6 one without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What requests are below, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether nobody on the way can read along.
    pub fn keeps_secrets(&self) -> bool {
        self.https || self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for WebAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<WebAddress, String> {
        let wrong = || format!("`{text}` is not an address such as \"https://pacs.example/dicom-web\"");
        let (https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        if !rest.bytes().all(|b| b.is_ascii_graphic()) || rest.contains(['@', '?', '#', '\\']) {
            return Err(wrong());
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let usual = if https { 443 } else { 80 };
        let (host, port) = match (authority.rfind(':'), authority.ends_with(']')) {
            (Some(at), false) => (&authority[..at], authority[at + 1..].parse().map_err(|_| wrong())?),
            _ => (authority, usual),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(WebAddress { https, host: host.into(), port, path: path.trim_end_matches('/').into() })
    }
}

/// An application entity title (PS3.5 section 6.2, VR AE): 1 to 16 printable ASCII characters without `\`, blanks around it
/// do not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AeTitle(String);

impl AeTitle {
    /// The title of this program unless another one is configured.
    pub fn ours() -> AeTitle {
        AeTitle("STUNETD".into())
    }

    /// The title, without blanks around it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AeTitle {
    type Err = String;
    fn from_str(text: &str) -> Result<AeTitle, String> {
        let title = text.trim_matches(' ');
        let fits = (1..=16).contains(&title.len()) && title.bytes().all(|b| (0x20..0x7F).contains(&b) && b != b'\\');
        if fits { Ok(AeTitle(title.into())) } else { Err(format!("`{text}` is not an AE title: 1 to 16 ASCII characters without `\\`")) }
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address, or a network of them: `"10.1.2.3"`, `"10.1.0.0/16"`, `"fd00::/8"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether an address lies in the network. An IPv4 address that came over an IPv6 socket counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => (ours.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits,
            (IpAddr::V6(ours), IpAddr::V6(other)) => (ours.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits,
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is not an address or a network, such as \"10.1.2.3\" or \"10.1.0.0/16\"");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= all).ok_or_else(wrong)?,
        };
        Ok(Network { address, bits })
    }
}

by_text!(LoopbackAddress, Listen, AeTitle, Network, WebAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let cases = [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "::1", true),
        ];
        for (network, address, inside) in cases {
            let network: Network = network.parse().expect(network);
            assert_eq!(network.contains(address.parse().expect(address)), inside, "{network:?} {address}");
        }
        for wrong in ["", "10.1.2", "10.1.2.3/33", "::/129", "10.1.2.3/", "host"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn web_addresses_are_split() {
        let parts = |text: &str| {
            let a: WebAddress = text.parse().expect(text);
            (a.https, a.host.clone(), a.port, a.path.clone(), a.keeps_secrets())
        };
        assert_eq!(parts("https://pacs.example/dicom-web/"), (true, "pacs.example".into(), 443, "/dicom-web".into(), true));
        assert_eq!(parts("http://10.1.2.3:8042/a/b"), (false, "10.1.2.3".into(), 8042, "/a/b".into(), false));
        assert_eq!(parts("http://[::1]:80"), (false, "::1".into(), 80, String::new(), true));
        assert_eq!(parts("http://localhost"), (false, "localhost".into(), 80, String::new(), true));
        for wrong in [
            "",
            "pacs.example",
            "ftp://x/",
            "http://",
            "http://:80/",
            "http://h:0/",
            "http://h:x/",
            "http://u:p@h/",
            "http://h/?q",
            "http://h/a b",
        ] {
            assert!(wrong.parse::<WebAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn titles_are_what_the_standard_allows() {
        for (text, title) in [("STUNETD", "STUNETD"), (" A B ", "A B"), ("0123456789ABCDEF", "0123456789ABCDEF")] {
            assert_eq!(text.parse::<AeTitle>().expect(text).as_str(), title);
        }
        for wrong in ["", "   ", "0123456789ABCDEFG", "A\\B", "Ä", "A\tB"] {
            assert!(wrong.parse::<AeTitle>().is_err(), "{wrong}");
        }
    }
}
