//! Values: what each key takes, what it refuses, and its default.

use super::*;

/// The problem's key, and that its words contain `advice`.
#[track_caller]
fn refuses(text: &str, key: &str, advice: &str) {
    let problem = World::new().only(text);
    assert_eq!(problem.key, key);
    assert!(problem.to_string().contains(advice), "{problem}");
}

#[test]
fn defaults() {
    let config = World::new().good(SMALL);
    assert_eq!(config.state_dir, Path::new("/var/lib/torq-connector"));
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.http.listen, Some("127.0.0.1:8686".parse().unwrap()));
    assert!(config.http.password.is_none());
    assert!(config.http.hosts.is_empty());
    assert_eq!(config.network.ca_file, None);
    assert_eq!(config.network.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.network.timeout, Duration::from_secs(60));
    let main = &config.connectors[0];
    assert_eq!(main.name.as_str(), "main");
    assert_eq!(main.poll_interval, Duration::from_secs(900));
    assert_eq!(main.removals, Removals::Report);
    assert_eq!(main.max_removals, MaxRemovals::Percent(10.0));
    assert_eq!(main.torq.client_id, "torq-id");
    assert_eq!(main.torq.client_secret.expose(), "t0rq-s3cret");
    assert_eq!(main.torq.key_expires, None);
    assert_eq!(main.jumpcloud.org_id, None);
    assert_eq!(main.jumpcloud.application, "torq");
    assert!(main.users.include_domains.is_empty());
    assert!(main.users.exclude_emails.is_empty());
    assert!(main.users.statuses.is_empty());
}

#[test]
fn both_endpoints_follow_the_region() {
    let world = World::new();
    for (region, api, token) in [
        (
            "us",
            "https://api.torq.io/public/v1alpha",
            "https://auth.torq.io/v1/auth/token",
        ),
        (
            "eu",
            "https://api.eu.torq.io/public/v1alpha",
            "https://auth.eu.torq.io/v1/auth/token",
        ),
    ] {
        let torq = world.connector(&with(".torq", &format!("region = \"{region}\""))).torq;
        assert_eq!((torq.api_url.as_str(), torq.token_url.as_str()), (api, token));
    }
    for (region, console, token) in [
        (
            "us",
            "https://console.jumpcloud.com/",
            "https://admin-oauth.id.jumpcloud.com/oauth2/token",
        ),
        (
            "eu",
            "https://console.eu.jumpcloud.com/",
            "https://admin-oauth.id.eu.jumpcloud.com/oauth2/token",
        ),
        (
            "in",
            "https://console.in.jumpcloud.com/",
            "https://admin-oauth.id.in.jumpcloud.com/oauth2/token",
        ),
    ] {
        let jumpcloud = world
            .connector(&with(".jumpcloud", &format!("region = \"{region}\"")))
            .jumpcloud;
        assert_eq!(
            (jumpcloud.console_url.as_str(), jumpcloud.token_url.as_str()),
            (console, token)
        );
    }
}

#[test]
fn a_region_must_be_named_unless_both_urls_are() {
    refuses(
        &without(".torq", "region"),
        "connectors.main.torq.region",
        "\"us\" or \"eu\", or api_url and token_url",
    );
    refuses(
        &without(".jumpcloud", "region"),
        "connectors.main.jumpcloud.region",
        "\"us\" or \"eu\" or \"in\", or console_url and token_url",
    );
    let half = without(".torq", "region").replace("torq-id\"", "torq-id\"\napi_url = \"https://a.example/v1/\"");
    refuses(&half, "connectors.main.torq.region", "missing");
    let whole = half.replace("torq-id\"", "torq-id\"\ntoken_url = \"https://b.example/token/\"");
    let torq = World::new().connector(&whole).torq;
    assert_eq!(torq.api_url.as_str(), "https://a.example/v1");
    // An endpoint is called as it is written.
    assert_eq!(torq.token_url.as_str(), "https://b.example/token/");
}

#[test]
fn urls_override_the_regions() {
    let torq = World::new()
        .connector(&with(".torq", "api_url = \"https://api.torq.io/v1alpha\""))
        .torq;
    assert_eq!(torq.api_url.as_str(), "https://api.torq.io/v1alpha");
    assert_eq!(torq.token_url.as_str(), "https://auth.torq.io/v1/auth/token");
}

#[test]
fn plain_http_is_for_this_machine_only() {
    let world = World::new();
    for good in [
        "http://127.0.0.1:1",
        "http://127.9.9.9/x",
        "http://[::1]:2",
        "http://localhost:3",
        "https://x.example",
    ] {
        world.connector(&with(".torq", &format!("api_url = \"{good}\"")));
    }
    for bad in [
        "http://torq.example",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[::ffff:1.2.3.4]",
        "ftp://x.example",
        "file:///etc/passwd",
        "x.example",
        "https://",
        "https://x.example/a b",
        "",
    ] {
        refuses(
            &with(".torq", &format!("api_url = \"{bad}\"")),
            "connectors.main.torq.api_url",
            "begins with https://",
        );
    }
}

#[test]
fn urls_hold_nothing_that_could_leak_and_such_are_not_shown() {
    let world = World::new();
    for (bad, advice) in [
        ("https://u:hush@x.example", "user name"),
        ("https://hush@x.example", "user name"),
        ("http://u:hush@x.example", "https://"),
        ("https://x.example/?token=hush", "query"),
        ("https://x.example/#hush", "fragment"),
    ] {
        let problem = world.only(&with(".jumpcloud", &format!("console_url = \"{bad}\"")));
        let shown = problem.to_string();
        assert!(shown.contains(advice) && !shown.contains("hush"), "{shown}");
    }
}

#[test]
fn durations() {
    let world = World::new();
    for (text, seconds) in [
        ("1m", 60),
        ("90s", 90),
        ("1h 30m", 5400),
        ("1d", 86_400),
        ("31d", 31 * 86_400),
        ("PT5M", 300),
    ] {
        let connector = world.connector(&with("", &format!("poll_interval = \"{text}\"")));
        assert_eq!(connector.poll_interval, Duration::from_secs(seconds), "{text}");
    }
    for text in [
        "\"59s\"",
        "\"32d\"",
        "\"15\"",
        "15",
        "\"-5m\"",
        "\"5m ago\"",
        "\"soon\"",
        "\"\"",
        "\"1 month\"",
        "[]",
        "1.5",
    ] {
        refuses(
            &with("", &format!("poll_interval = {text}")),
            "connectors.main.poll_interval",
            "from 1m to 31d",
        );
    }
    for (text, good) in [("1s", true), ("10m", true), ("500ms", false), ("11m", false)] {
        let text = with_general("network", &format!("timeout = \"{text}\""));
        assert_eq!(world.parse(&text).is_ok(), good);
    }
}

#[test]
fn a_rehearsal_on_loopback_may_poll_every_second() {
    let local = |host: &str| {
        let torq = format!("api_url = \"http://{host}/api\"\ntoken_url = \"http://{host}/token\"");
        let jumpcloud = format!("console_url = \"http://{host}\"\ntoken_url = \"http://{host}/token\"");
        SMALL
            .replacen("region = \"us\"", &torq, 1)
            .replacen("region = \"us\"", &jumpcloud, 1)
            + "[connectors.main]\npoll_interval = \"1s\""
    };
    let world = World::new();
    assert_eq!(
        world.connector(&local("127.0.0.1:9")).poll_interval,
        Duration::from_secs(1)
    );
    let one_remote = local("127.0.0.1:9").replace("http://127.0.0.1:9/token", "https://127.0.0.1:9/token");
    refuses(&one_remote, "connectors.main.poll_interval", "from 1m");
    refuses(
        &local("[::1]").replace("\"1s\"", "\"900ms\""),
        "connectors.main.poll_interval",
        "from 1s",
    );
}

#[test]
fn max_removals_is_percent_or_a_number() {
    let world = World::new();
    for (text, expected) in [
        ("\"10%\"", MaxRemovals::Percent(10.0)),
        ("\"2.5 %\"", MaxRemovals::Percent(2.5)),
        ("\"0%\"", MaxRemovals::Percent(0.0)),
        ("\"100%\"", MaxRemovals::Percent(100.0)),
        ("0", MaxRemovals::Users(0)),
        ("1_000", MaxRemovals::Users(1000)),
        ("\"25\"", MaxRemovals::Users(25)),
    ] {
        assert_eq!(
            world
                .connector(&with("", &format!("max_removals = {text}")))
                .max_removals,
            expected
        );
    }
    for text in [
        "\"101%\"",
        "\"-1%\"",
        "-1",
        "1.5",
        "\"1.5\"",
        "\"many\"",
        "\"%\"",
        "\"NaN%\"",
        "\"inf%\"",
        "\"1e1%\"",
        "\"\"",
        "true",
        "99999999999999999999",
    ] {
        refuses(
            &with("", &format!("max_removals = {text}")),
            "connectors.main.max_removals",
            "\"0%\" to \"100%\"",
        );
    }
}

#[test]
fn removals_are_reported_or_deleted() {
    assert_eq!(
        World::new().connector(&with("", "removals = \"delete\"")).removals,
        Removals::Delete
    );
    refuses(
        &with("", "removals = true"),
        "connectors.main.removals",
        "found true; must be \"report\" or \"delete\"",
    );
}

#[test]
fn log_levels_and_filters() {
    let world = World::new();
    for good in [
        "error",
        "warn",
        "INFO",
        "debug",
        "trace",
        "off",
        "info,torq_connector=debug",
        "warn,torq_connector::sync[run]=trace",
    ] {
        world.good(&with_general("log", &format!("level = \"{good}\"")));
    }
    // As a regular expression it would take minutes.
    let dots = format!("level = 'info,[run{{connector=\"{}\"}}]=debug'", ".".repeat(60));
    world.good(&with_general("log", &dots));
    for bad in ["inof", "verbose", "info,x=loud", "", "a=b=c"] {
        refuses(
            &with_general("log", &format!("level = \"{bad}\"")),
            "log.level",
            "info,torq_connector=debug",
        );
    }
    assert_eq!(
        world.good(&with_general("log", "format = \"json\"")).log.format,
        LogFormat::Json
    );
}

#[test]
fn where_to_listen() {
    let world = World::new();
    for (text, expected) in [
        ("off", None),
        ("0.0.0.0:80", Some("0.0.0.0:80".parse().unwrap())),
        ("[::1]:8686", Some("[::1]:8686".parse().unwrap())),
    ] {
        assert_eq!(
            world
                .good(&with_general("http", &format!("listen = \"{text}\"")))
                .http
                .listen,
            expected
        );
    }
    for bad in ["\"8686\"", "8686", "\"localhost:8686\"", "\"127.0.0.1\"", "false"] {
        refuses(
            &with_general("http", &format!("listen = {bad}")),
            "http.listen",
            "\"off\"",
        );
    }
}

#[test]
fn host_names_of_the_page() {
    let config = World::new().good(&with_general(
        "http",
        "hosts = [\"Connector.Example.com\", \"intranet\"]",
    ));
    assert_eq!(config.http.hosts, ["connector.example.com", "intranet"]);
    for bad in ["https://a.example", "a.example:80", "", "a..b", "*.example.com"] {
        refuses(
            &with_general("http", &format!("hosts = [\"{bad}\"]")),
            "http.hosts",
            "without scheme and port",
        );
    }
}

#[test]
fn key_expiry_is_a_date() {
    let world = World::new();
    for good in ["2027-03-01", "\"2027-03-01\""] {
        let torq = world.connector(&with(".torq", &format!("key_expires = {good}"))).torq;
        assert_eq!(torq.key_expires, Some(jiff::civil::date(2027, 3, 1)));
    }
    for bad in [
        "2027-03-01T00:00:00Z",
        "\"2027-02-30\"",
        "\"1.3.2027\"",
        "20270301",
        "\"\"",
    ] {
        refuses(
            &with(".torq", &format!("key_expires = {bad}")),
            "connectors.main.torq.key_expires",
            "such as 2027-03-01",
        );
    }
}

#[test]
fn ids_can_be_sent() {
    let world = World::new();
    let text = with(".jumpcloud", "org_id = \"5f1b\"").replace("[connectors.main.torq]", "[connectors.main.torq]\n");
    assert_eq!(world.connector(&text).jumpcloud.org_id.as_deref(), Some("5f1b"));
    for bad in ["\"a b\"", "\"a\\nb\"", "\"é\"", "\"\"", "5"] {
        refuses(
            &with(".jumpcloud", &format!("org_id = {bad}")),
            "connectors.main.jumpcloud.org_id",
            "organisation",
        );
        refuses(
            &with(".torq", &format!("client_id = {bad}")),
            "connectors.main.torq.client_id",
            "client id",
        );
    }
    for bad in ["a/b", "a?b", "..%2f", ""] {
        refuses(
            &with(".jumpcloud", &format!("application = \"{bad}\"")),
            "connectors.main.jumpcloud.application",
            "catalog_app_id",
        );
    }
}

#[test]
fn placeholders_are_refused() {
    for left in ["…", "...", "<client id>", "YOUR_CLIENT_ID"] {
        refuses(
            &with(".torq", &format!("client_id = \"{left}\"")),
            "connectors.main.torq.client_id",
            "replace the placeholder",
        );
    }
}

#[test]
fn lists_of_users() {
    let world = World::new();
    let text = format!(
        "{SMALL}[connectors.main.users]\ninclude_domains = [\"@Example.COM\", \"müller.example\", \"example.com\"]\n\
         exclude_emails = [\" *@Contractor.example \"]\nstatuses = [\"VERIFIED\", \"new_One\"]"
    );
    let users = world.connector(&text).users;
    assert_eq!(users.include_domains, ["example.com", "müller.example"]);
    assert_eq!(users.exclude_emails, ["*@contractor.example"]);
    assert_eq!(users.statuses, ["VERIFIED", "new_One"]);
    for (key, bad) in [
        ("include_domains", "[\"*.example.com\"]"),
        ("include_domains", "[\"\"]"),
        ("include_domains", "[\"a@b.example\"]"),
        ("include_domains", "[\"localhost\"]"),
        ("include_domains", "\"example.com\""),
        ("include_domains", "[5]"),
        ("exclude_emails", "[\"nobody\"]"),
        ("exclude_emails", "[\"\"]"),
        ("statuses", "[\"\"]"),
        ("statuses", "true"),
    ] {
        refuses(
            &with(".users", &format!("{key} = {bad}")),
            &format!("connectors.main.users.{key}"),
            "must be",
        );
    }
    // Each bad item is told.
    assert_eq!(
        world
            .bad(&with(".users", "include_domains = [\"a\", \"b.example\", \"c\"]"))
            .len(),
        2
    );
}

#[test]
fn the_past_is_kept_for_a_time_or_for_ever() {
    let world = World::new();
    let day = Duration::from_secs(86_400);
    assert_eq!(world.connector(SMALL).retention, Some(day * 400));
    for (text, kept) in [("7d", Some(day * 7)), ("52w", Some(day * 364)), ("off", None)] {
        let connector = world.connector(&with("", &format!("retention = \"{text}\"")));
        assert_eq!(connector.retention, kept, "{text}");
    }
    for text in ["\"6d\"", "\"0\"", "400", "\"never\"", "\"1y\"", "\"100000d\"", "false"] {
        refuses(
            &with("", &format!("retention = {text}")),
            "connectors.main.retention",
            "from 7d to 36500d, or \"off\"",
        );
    }
}
