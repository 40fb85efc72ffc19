//! The proxy that the environment names: which one it is, for messages, and whether it is one at all. Requests find it by themselves,
//! by the same rules. Its credentials are shown nowhere.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::ClientError;

/// The variables that name a proxy for HTTPS, in the order in which they count. (Plain HTTP never goes through one.)
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Host and port of the proxy through which this address is reached; `None` where there is none in between.
pub(super) fn towards(url: &Url) -> Option<String> {
    if url.scheme() != "https" {
        return None;
    }
    let target: http::Uri = url.as_str().parse().ok()?;
    let proxy = Matcher::from_env().intercept(&target)?;
    let host = proxy.uri().host()?;
    Some(match proxy.uri().port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
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
    let matcher = Matcher::builder().all(value.to_owned()).build();
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
        ] {
            assert!(
                check(|name| (name == "HTTPS_PROXY").then(|| good.to_owned())).is_ok(),
                "{good}"
            );
        }
        for bad in ["garbage://", "http://", "socks5://user:s3cret@proxy.example:1080", "::"] {
            let error = check(|name| (name == "all_proxy").then(|| bad.to_owned())).unwrap_err();
            let words = error.to_string();
            assert!(words.contains("all_proxy") && !words.contains("s3cret"), "{words}");
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
