//! The proxy that the environment names: which one it is, for messages, whether it is one at all, and what it did to a connection.
//! Requests find it by themselves, by the same rules. Its credentials are shown nowhere.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::ClientError;

/// The variables that name a proxy for HTTPS, in the order in which they count. (Plain HTTP never goes through one.)
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// A proxy on the way to an address.
pub(super) struct Proxy {
    /// Its host and port.
    pub(super) address: String,
    /// Whether it is told who we are.
    pub(super) knows_us: bool,
}

/// The proxy through which this address is reached; `None` where there is none in between.
pub(super) fn towards(url: &Url) -> Option<Proxy> {
    if url.scheme() != "https" {
        return None;
    }
    let target: http::Uri = url.as_str().parse().ok()?;
    let proxy = Matcher::from_env().intercept(&target)?;
    let host = proxy.uri().host()?;
    Some(Proxy {
        address: match proxy.uri().port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        },
        knows_us: proxy.basic_auth().is_some(),
    })
}

/// Host and port of an address, and of the proxy on the way there.
pub fn road(url: &Url) -> String {
    match towards(url) {
        Some(proxy) => format!("{} through the proxy {}", address(url), proxy.address),
        None => address(url),
    }
}

/// What became of a connection that a proxy was to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// Its name does not resolve.
    NoName,
    /// Nobody took the connection to it, or what it says cannot be understood.
    Away,
    /// Its own certificate is not trusted. (It is an `https://` proxy.)
    Untrusted,
    /// It wants to know who we are.
    Asks,
    /// It said no: a rule forbids it, or it cannot reach the address itself.
    Refused,
}

impl Tunnel {
    /// From the links of an error, the outermost first; `None` when the proxy did what it should, or there is none. The words are those of
    /// the HTTP client, which has no other way to tell; a test with a real proxy holds on to each of them.
    pub(super) fn of(chain: &[String]) -> Option<Self> {
        let words = chain.iter().find_map(|link| link.strip_prefix("tunnel error: "))?;
        let has = |needle: &str| chain.iter().any(|link| link.contains(needle));
        Some(match words {
            "proxy authorization required" => Self::Asks,
            "unsuccessful" => Self::Refused,
            _ if has("dns error") => Self::NoName,
            _ if has("certificate") => Self::Untrusted,
            _ => Self::Away,
        })
    }
}

/// Host and port of an address: what a firewall or a proxy lets through, or does not.
pub fn address(url: &Url) -> String {
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// Whether the environment names a proxy that cannot be used. It would be passed by, where nothing else may be let out.
///
/// # Errors
/// [`ClientError::Proxy`], with the name of the variable.
pub fn check_environment() -> Result<(), ClientError> {
    check(|name| std::env::var(name).ok())
}

fn check(variable: impl Fn(&str) -> Option<String>) -> Result<(), ClientError> {
    for name in VARIABLES {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        if !is_usable(&value) {
            let variable = name.to_owned();
            return Err(ClientError::Proxy { variable });
        }
    }
    Ok(())
}

fn is_usable(value: &str) -> bool {
    // Behind the address there is nothing. A password that was not encoded would end there, and its beginning be taken for a port.
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.contains(['/', '?', '#', '\\']) || address.matches('@').count() > 1 {
        return false;
    }
    let matcher = Matcher::builder().all(format!("{scheme}://{rest}")).build();
    let anywhere = http::Uri::from_static("https://anywhere.example/");
    let found = matcher.intercept(&anywhere);
    found.is_some_and(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proxy_is_told_with_the_name_of_its_variable_and_not_its_value() {
        for good in [
            "http://proxy.example:3128",
            "https://proxy.example",
            "proxy.example:3128",
            "http://user:s3cret@proxy.example:3128",
            "http://user:s%23c%2Fr%40t@proxy.example:3128/",
            "http://[::1]:3128",
        ] {
            assert!(
                check(|name| (name == "HTTPS_PROXY").then(|| good.to_owned())).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "garbage://",
            "http://",
            "socks5://user:s3cret@proxy.example:1080",
            "::",
            // Not encoded: the beginning of the password would be the port.
            "http://user:1234#s3cret@proxy.example:3128",
            "http://user:12/s3cret@proxy.example:3128",
            "user:1?s3cret@proxy.example:3128",
            "http://user:s3@cret@proxy.example:3128",
        ] {
            let error = check(|name| (name == "all_proxy").then(|| bad.to_owned())).expect_err(bad);
            let words = error.to_string();
            assert!(words.contains("all_proxy") && words.contains("%40"), "{words}");
            assert!(!words.contains("s3") && !words.contains("cret"), "{words}");
        }
        assert!(check(|_| Some(String::new())).is_ok());
    }

    #[test]
    fn an_address_is_host_and_port() {
        let told = |url: &str| address(&Url::parse(url).unwrap());
        assert_eq!(told("https://api.torq.io/public/v1alpha"), "api.torq.io:443");
        assert_eq!(told("http://127.0.0.1:9400/torq"), "127.0.0.1:9400");
        assert_eq!(told("https://[::1]/"), "[::1]:443");
    }
}
