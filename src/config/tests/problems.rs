//! Everything that is wrong is told at once, each with its key, what was found and what is allowed.

use super::*;

#[test]
fn everything_is_told_at_once() {
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__LOG__LEVLE", "debug");
    let problems = world.bad(
        r#"
stat_dir = "/x"
[log]
format = "xml"
[http]
listen = "everywhere"
[network]
timeout = "1h"
[connectors.main]
poll_interval = "15"
removals = "all"
max_removals = "110%"
[connectors.main.torq]
region = "uk"
client_id = "…"
key_expires = "soon"
[connectors.main.jumpcloud]
client_id = 5
client_secret = 5
client_secret_file = "x"
org_id = ""
application = "a/b"
[connectors.main.users]
include_domains = ["*.example.com", "good.example"]
exclude_emails = "x@y"
[connectors.other]
"#,
    );
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    for key in [
        "stat_dir",
        "log.levle",
        "log.format",
        "http.listen",
        "network.timeout",
        "connectors.main.poll_interval",
        "connectors.main.removals",
        "connectors.main.max_removals",
        "connectors.main.torq.region",
        "connectors.main.torq.client_id",
        "connectors.main.torq.client_secret",
        "connectors.main.torq.key_expires",
        "connectors.main.jumpcloud.region",
        "connectors.main.jumpcloud.client_id",
        "connectors.main.jumpcloud.client_secret",
        "connectors.main.jumpcloud.org_id",
        "connectors.main.jumpcloud.application",
        "connectors.main.users.include_domains",
        "connectors.main.users.exclude_emails",
        "connectors.other.torq.region",
        "connectors.other.torq.client_id",
        "connectors.other.torq.client_secret",
        "connectors.other.jumpcloud.region",
        "connectors.other.jumpcloud.client_id",
    ] {
        assert_eq!(keys.iter().filter(|k| **k == key).count(), 1, "{key} in {keys:#?}");
    }
    assert_eq!(keys.len(), 24, "{keys:#?}");
}

#[test]
fn problems_are_shown_one_per_line_with_key_place_finding_and_advice() {
    let world = World::new();
    let text = with(".torq", r#"region = "uk""#).replace("client_id = \"torq-id\"", "");
    let shown = world.parse(&text).unwrap_err().to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "connectors.main.torq.region (line 3): found \"uk\"; must be \"us\" or \"eu\"",
            "connectors.main.torq.client_id: missing: give the client id of the Torq API key (or set the environment \
             variable TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_ID)",
        ]
    );
}

#[test]
fn values_with_line_breaks_stay_on_one_line() {
    let shown = World::new()
        .parse(&with(".torq", r#"region = "u\ns""#))
        .unwrap_err()
        .to_string();
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[test]
fn an_unknown_key_is_told_with_what_it_may_have_been_meant_to_be() {
    let world = World::new();
    for (text, key, advice) in [
        (
            with(".torq", "client_secrt = \"hush\""),
            "connectors.main.torq.client_secrt",
            "did you mean \"client_secret\"?",
        ),
        (
            with(".torq", "clientid = \"a\""),
            "connectors.main.torq.clientid",
            "did you mean \"client_id\"?",
        ),
        (
            with("", "poll-interval = \"15m\""),
            "connectors.main.poll-interval",
            "did you mean \"poll_interval\"?",
        ),
        (
            with("", "region = \"us\""),
            "connectors.main.region",
            "it belongs in [connectors.main.torq] or [connectors.main.jumpcloud]",
        ),
        (
            with_general("http", "level = \"info\""),
            "http.level",
            "it belongs in [log]",
        ),
        (
            with_general("log", "file = \"x\""),
            "log.file",
            "known here: level, format",
        ),
        (
            with_general("conectors", "x = 1"),
            "conectors",
            "did you mean \"connectors\"?",
        ),
        (
            format!("poll_interval = \"1m\"\n{SMALL}"),
            "poll_interval",
            "it belongs in [connectors.NAME]",
        ),
        (
            format!("\"log.level\" = \"info\"\n{SMALL}"),
            "\"log.level\"",
            "unknown key",
        ),
        (
            format!("\"a[999999999999]\" = 1\n{SMALL}"),
            "\"a[999999999999]\"",
            "unknown key",
        ),
    ] {
        let problem = world.only(&text);
        assert_eq!(problem.key, key);
        assert!(problem.message.contains(advice), "{problem}");
        assert!(problem.message.contains("known here: "), "{problem}");
        assert!(problem.origin.unwrap().starts_with("line "));
        assert_eq!(problem.found, None);
    }
}

#[test]
fn a_value_where_a_section_must_be_is_told_once() {
    let world = World::new();
    for (text, key, found) in [
        ("connectors = 5", "connectors", "an integer"),
        ("[[connectors]]\nname = 1", "connectors", "a list"),
        ("[connectors]\nmain = \"x\"", "connectors.main", "a string"),
        (&format!("log = \"info\"\n{SMALL}"), "log", "a string"),
    ] {
        let problem = world.only(text);
        assert_eq!((problem.key.as_str(), problem.found.as_deref()), (key, Some(found)));
    }
    // The environment must not cover it up.
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__LOG__LEVEL", "debug");
    assert_eq!(world.only(&format!("log = \"info\"\n{SMALL}")).key, "log");
}

#[test]
fn a_misspelt_section_is_told_once_without_what_is_missing_because_of_it() {
    let world = World::new();
    for (text, key) in [
        (SMALL.replace("main.torq]", "main.torqq]"), "connectors.main.torqq"),
        (
            SMALL.replace("main.jumpcloud]", "main.jumpclud]"),
            "connectors.main.jumpclud",
        ),
        (SMALL.replace("connectors.", "conectors."), "conectors"),
    ] {
        let problem = world.only(&text);
        assert_eq!(problem.key, key);
        assert!(problem.message.contains("did you mean"), "{problem}");
    }
}

#[test]
fn a_section_where_a_value_must_be_is_told() {
    let problem = World::new().only(&with_general("http.listen", "port = 1"));
    assert_eq!(problem.key, "http.listen");
    assert_eq!(problem.found.as_deref(), Some("a section"));
}

#[test]
fn no_connectors_at_all_is_a_problem() {
    for text in ["", "[log]\nlevel = \"info\"", "[connectors]"] {
        let problem = World::new().only(text);
        assert_eq!(problem.key, "connectors");
        assert!(problem.message.contains("[connectors.NAME]"), "{problem}");
    }
}

#[test]
fn connector_names_are_safe_and_differ_in_more_than_case() {
    let world = World::new();
    let problem = world.only(&SMALL.replace("connectors.main", "connectors.\"a/b\""));
    assert_eq!(problem.key, "connectors.\"a/b\"");
    assert!(problem.message.contains("1 to 64 letters"), "{problem}");

    let twice = format!("{SMALL}{}", SMALL.replace("connectors.main", "connectors.Main"));
    let problem = world.only(&twice);
    assert!(problem.message.contains("but for case"), "{problem}");

    let dots = world.connector(&SMALL.replace("connectors.main", "connectors.\"Acme.EU-1\""));
    assert_eq!(dots.name.as_str(), "Acme.EU-1");
}

#[test]
fn connectors_come_in_the_order_of_their_names() {
    let text = ["b", "a", "c"].map(|name| SMALL.replace("main", name)).join("");
    let config = World::new().good(&text);
    let names: Vec<&str> = config.connectors.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn syntax_errors_tell_line_and_column_and_quote_nothing() {
    let world = World::new();
    for (text, place) in [
        ("[log]\nclient_secret = hunter2\n", "line 2, column 17"),
        ("[log]\nclient_secret \"hunter2\"\n", "line 2"),
        ("client_secret = \"hunter2\n", "line 1"),
        ("client_secret = 'hunter2' hunter2", "line 1"),
        ("client_secret = \"\\hunter2\"", "line 1"),
        ("a = 1\na = \"hunter2\"", "line 2, column 1"),
        ("é = hunter2", "line 1"),
    ] {
        let problem = world.only(text);
        assert_eq!(problem.key, "");
        let shown = problem.to_string();
        assert!(shown.contains(place), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
    }
}

#[test]
fn endless_nesting_is_refused() {
    let deep = 100_000;
    for text in [
        format!("a = {}", "[".repeat(deep)),
        format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("a = {}", "{a=".repeat(deep)),
        format!("{}a = 1", "a.".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
    ] {
        World::new().bad(&text);
    }
}

proptest::proptest! {
    #[test]
    fn any_garbage_is_refused_or_taken_and_never_breaks(text in "\\PC{0,200}", mode in 0u32..0o1000) {
        let refused = parse(&text, Path::new("/nowhere"), Some(mode), &BTreeMap::new()).unwrap_err();
        proptest::prop_assert!(!refused.0.is_empty());
    }

    #[test]
    fn any_toml_like_garbage_never_breaks(
        key in "[a-z_.\\[\\]\"0-9]{1,20}",
        value in "(\"\\PC{0,20}\"|[0-9]{1,40}|-?[0-9.e]{1,10}|\\[.{0,10}\\]|\\{.{0,10}\\}|2027-03-01)",
        line in 0usize..12,
    ) {
        let mut lines: Vec<String> = SMALL.lines().map(str::to_owned).collect();
        lines.insert(line.min(lines.len()), format!("{key} = {value}"));
        if let Err(refused) = parse(&lines.join("\n"), Path::new("/nowhere"), None, &BTreeMap::new()) {
            proptest::prop_assert!(!refused.0.is_empty());
            let _ = refused.to_string();
        }
    }

    #[test]
    fn any_variable_never_breaks(name in "[A-Za-z_.0-9é-]{0,40}", value in "\\PC{0,20}") {
        let env = BTreeMap::from([(format!("TORQ_CONNECTOR__{name}"), value)]);
        proptest::prop_assert!(parse("", Path::new("/nowhere"), None, &env).is_err());
    }
}

#[test]
fn names_of_keys_and_variables_are_whatever_somebody_wrote_and_are_told_on_one_short_line() {
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__\u{1b}[31m\n__X", "1");
    let long = "k".repeat(10_000);
    let text = format!("\"\\u001b[31m\\n\\u202e\" = 1\n{long} = 2\n{SMALL}");
    let problems = world.bad(&text);
    assert_eq!(problems.len(), 3);
    for problem in problems {
        let told = problem.to_string();
        assert!(!told.contains(crate::model::steers), "{told:?}");
        assert!(told.chars().count() < 1000, "{told}");
    }
}
