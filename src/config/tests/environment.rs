//! The environment: how variables find their keys, and that their values arrive as they were.

use super::*;

/// Variables that set up a connector completely.
fn whole(world: &mut World, name: &str) {
    for (key, value) in [
        ("TORQ__REGION", "eu"),
        ("TORQ__CLIENT_ID", "id"),
        ("TORQ__CLIENT_SECRET", "s1"),
        ("JUMPCLOUD__REGION", "in"),
        ("JUMPCLOUD__API_KEY", "key"),
    ] {
        world.set(&format!("TORQ_CONNECTOR__CONNECTORS__{name}__{key}"), value);
    }
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let mut world = World::new();
    let text = with("", "poll_interval = \"20m\"");
    assert_eq!(world.connector(&text).poll_interval, Duration::from_secs(1200));
    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__POLL_INTERVAL", "30m");
    assert_eq!(world.connector(&text).poll_interval, Duration::from_secs(1800));
}

#[test]
fn a_connector_can_come_from_the_environment_alone() {
    let mut world = World::new();
    whole(&mut world, "ACME__Eu");
    let connector = world.connector("");
    assert_eq!(connector.name.as_str(), "acme__eu");
    assert_eq!(connector.torq.api_url.as_str(), "https://api.eu.torq.io/public/v1alpha");
    assert_eq!(connector.torq.client_secret.source, SecretSource::Environment);
    assert!(matches!(&connector.jumpcloud.credentials, JumpCloudCredentials::ApiKey(key) if key.expose() == "key"));
    assert_eq!(connector.poll_interval, Duration::from_secs(900));
}

#[test]
fn text_becomes_what_each_key_takes() {
    let mut world = World::new();
    for (key, value) in [
        ("STATE_DIR", "state"),
        ("LOG__LEVEL", "debug"),
        ("LOG__FORMAT", "json"),
        ("HTTP__LISTEN", "off"),
        ("HTTP__HOSTS", "a.example, b.example"),
        ("NETWORK__TIMEOUT", "5s"),
        ("CONNECTORS__MAIN__POLL_INTERVAL", "5m"),
        ("CONNECTORS__MAIN__MAX_REMOVALS", "5"),
        ("CONNECTORS__MAIN__TORQ__KEY_EXPIRES", "2027-03-01"),
        ("CONNECTORS__MAIN__JUMPCLOUD__ORG_ID", "1234"),
        ("CONNECTORS__MAIN__USERS__INCLUDE_DOMAINS", "a.example,@B.example,"),
        ("CONNECTORS__MAIN__USERS__EXCLUDE_EMAILS", ""),
    ] {
        world.set(&format!("TORQ_CONNECTOR__{key}"), value);
    }
    let mut config = world.good(&with(".users", "exclude_emails = [\"x@*\"]"));
    let main = config.connectors.remove(0);
    assert_eq!(config.state_dir, world.path("state"));
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("debug", LogFormat::Json)
    );
    assert_eq!(config.http.listen, None);
    assert_eq!(config.http.hosts, ["a.example", "b.example"]);
    assert_eq!(config.network.timeout, Duration::from_secs(5));
    assert_eq!(main.poll_interval, Duration::from_secs(300));
    assert_eq!(main.max_removals, MaxRemovals::Users(5));
    assert_eq!(main.torq.key_expires, Some(jiff::civil::date(2027, 3, 1)));
    assert_eq!(main.jumpcloud.org_id.as_deref(), Some("1234"));
    assert_eq!(main.users.include_domains, ["a.example", "b.example"]);
    assert!(main.users.exclude_emails.is_empty());
}

#[test]
fn a_variable_finds_the_connector_ignoring_case_dashes_and_dots() {
    for name in ["Acme-EU", "acme.eu", "ACME_eu"] {
        let mut world = World::new();
        world.set("TORQ_CONNECTOR__CONNECTORS__ACME_EU__TORQ__CLIENT_SECRET", "from-env");
        let connector = world.connector(&SMALL.replace("connectors.main", &format!("connectors.\"{name}\"")));
        assert_eq!(connector.name.as_str(), name);
        assert_eq!(connector.torq.client_secret.expose(), "from-env");
    }
}

#[test]
fn a_variable_that_may_mean_two_connectors_is_refused() {
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__CONNECTORS__ACME_EU__TORQ__CLIENT_SECRET", "hush");
    let text = ["\"acme.eu\"", "acme-eu"]
        .map(|name| SMALL.replace("connectors.main", &format!("connectors.{name}")))
        .join("");
    let problem = world.only(&text);
    assert!(problem.message.contains("acme-eu or acme.eu"), "{problem}");
}

#[test]
fn unknown_variables_are_told_by_name() {
    for (variable, key, advice) in [
        ("LOG__LEVLE", "log.levle", "did you mean \"level\"?"),
        ("LGO__LEVEL", "lgo.level", "did you mean \"log\"?"),
        ("STATEDIR", "statedir", "did you mean \"state_dir\"?"),
        ("LOG", "log", "section"),
        ("CONNECTORS", "connectors", "section"),
        ("CONNECTORS__MAIN", "connectors.main", "section"),
        ("CONNECTORS__MAIN__TORQ", "connectors.main.torq", "section"),
        (
            "CONNECTORS__MAIN__TORQ__SECRET",
            "connectors.main.torq.secret",
            "known here: region, client_id",
        ),
        (
            "CONNECTORS__MAIN__POLL__INTERVAL",
            "connectors.main.poll.interval",
            "known here: poll_interval",
        ),
        ("", "", "unknown key"),
    ] {
        let mut world = World::new();
        world.set(&format!("TORQ_CONNECTOR__{variable}"), "hush");
        let problem = world.only(SMALL);
        assert_eq!(problem.key, key);
        assert_eq!(
            problem.origin,
            Some(format!("the environment variable TORQ_CONNECTOR__{variable}"))
        );
        let shown = problem.to_string();
        assert!(shown.contains(advice) && !shown.contains("hush"), "{shown}");
    }
}

#[test]
fn a_slip_in_a_connectors_name_is_told_once_with_its_variable() {
    let mut world = World::new();
    let variable = "TORQ_CONNECTOR__CONNECTORS__MIAN__TORQ__REGION";
    world.set(variable, "eu");
    assert_eq!(
        world.only(SMALL).to_string(),
        format!("connectors.mian: only the environment variable {variable} names it; did you mean main?")
    );
    // Whose name is like no other's is meant, and told what it lacks.
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__CONNECTORS__PRODUCTION__TORQ__REGION", "eu");
    assert!(world.bad(SMALL).len() > 1);
    // And what is complete is no slip.
    let mut world = World::new();
    whole(&mut world, "MAIM");
    assert_eq!(world.good(SMALL).connectors.len(), 2);
}

#[test]
fn a_variable_that_goes_on_behind_a_value_is_told_as_that() {
    for (variable, key) in [
        ("LOG__LEVEL__X", "log.level"),
        ("CONNECTORS__MAIN__TORQ__REGION__X", "connectors.main.torq.region"),
    ] {
        let mut world = World::new();
        world.set(&format!("TORQ_CONNECTOR__{variable}"), "1");
        let problem = world.only(SMALL);
        assert!(
            problem.message.contains(&format!("{key} is a key with a value"))
                && !problem.message.contains("did you mean"),
            "{problem}"
        );
    }
}

#[test]
fn a_bad_value_is_told_with_its_variable() {
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__LOG__FORMAT", "xml");
    assert_eq!(
        world.only(SMALL).to_string(),
        "log.format (the environment variable TORQ_CONNECTOR__LOG__FORMAT): found \"xml\"; must be \"text\" or \"json\""
    );
}

#[test]
fn the_same_key_twice_is_told() {
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__LOG__LEVEL", "info");
    world.set("TORQ_CONNECTOR__log__level", "debug");
    let problem = world.only(SMALL);
    assert!(problem.message.contains("TORQ_CONNECTOR__LOG__LEVEL"), "{problem}");
}

#[test]
fn variables_with_a_single_underscore_are_none_of_ours() {
    let mut world = World::new();
    for variable in [
        "TORQ_CONNECTOR_CONFIG",
        "TORQ_CONNECTOR_PORT_8686_TCP",
        "TORQ_CONNECTOR",
        "TORQ_CONNECTORS__X",
        "PATH",
    ] {
        world.set(variable, "x");
    }
    world.good(SMALL);
}

#[test]
fn an_empty_variable_is_set_and_empty() {
    for (variable, key) in [
        ("LOG__LEVEL", "log.level"),
        ("CONNECTORS__MAIN__TORQ__REGION", "connectors.main.torq.region"),
        ("CONNECTORS__MAIN__TORQ__CLIENT_ID", "connectors.main.torq.client_id"),
        (
            "CONNECTORS__MAIN__TORQ__CLIENT_SECRET",
            "connectors.main.torq.client_secret",
        ),
        (
            "CONNECTORS__MAIN__TORQ__CLIENT_SECRET_FILE",
            "connectors.main.torq.client_secret_file",
        ),
        ("STATE_DIR", "state_dir"),
    ] {
        let mut world = World::new();
        world.set(&format!("TORQ_CONNECTOR__{variable}"), "");
        let problem = world.only(SMALL);
        assert_eq!(problem.key, key);
        assert!(problem.to_string().contains("empty"), "{problem}");
    }
}

#[test]
fn secrets_that_look_like_numbers_survive() {
    for secret in [
        "0123456",
        "1e5",
        "true",
        "  spaces  ",
        "a,b",
        "\"quoted\"",
        "$HOME",
        "null",
    ] {
        let mut world = World::new();
        world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET", secret);
        assert_eq!(world.connector(SMALL).torq.client_secret.expose(), secret);
    }
}

proptest::proptest! {
    #[test]
    fn any_secret_survives(secret in "\\PC{1,100}") {
        proptest::prop_assume!(!crate::config::secret::is_placeholder(&secret));
        let env = BTreeMap::from([
            ("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET".to_owned(), secret.clone()),
            ("TORQ_CONNECTOR__CONNECTORS__MAIN__JUMPCLOUD__CLIENT_SECRET".to_owned(), secret.clone()),
        ]);
        let config = parse(SMALL, Path::new("/nowhere"), None, &env).unwrap();
        proptest::prop_assert_eq!(config.connectors[0].torq.client_secret.expose(), secret.as_str());
    }
}
