//! Secrets: which one counts, where their files are looked for, who may read them, and that none is ever shown.

use super::*;

const TORQ: &str = "connectors.main.torq";

#[test]
fn exactly_one_of_secret_and_file() {
    let world = World::new();
    let problem = world.only(&with(".torq", "client_secret = \"hush\""));
    assert_eq!(problem.key, format!("{TORQ}.client_secret"));
    assert!(
        problem
            .message
            .contains("client_secret and client_secret_file are both given"),
        "{problem}"
    );

    let problem = world.only(&without(".torq", "client_secret_file"));
    assert_eq!(problem.key, format!("{TORQ}.client_secret"));
    assert!(
        problem
            .message
            .contains("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET"),
        "{problem}"
    );
}

#[test]
fn the_environment_wins_over_the_other_form_in_the_file() {
    let mut world = World::new();
    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET", "from-env");
    assert_eq!(world.connector(SMALL).torq.client_secret.expose(), "from-env");

    let mut world = World::new();
    world.set(
        "TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET_FILE",
        "jumpcloud_secret",
    );
    let text = without(".torq", "client_secret_file").replace("torq-id\"", "torq-id\"\nclient_secret = \"literal\"");
    let secret = world.connector(&text).torq.client_secret;
    assert_eq!(secret.expose(), "jumpcl0ud-s3cret");
    assert_eq!(secret.source, SecretSource::File(world.path("jumpcloud_secret")));

    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET", "both");
    assert!(world.only(SMALL).message.contains("both given"));
}

#[test]
fn one_way_to_authenticate_to_jumpcloud() {
    let mut world = World::new();
    world.write("key", "api-key\n", 0o600);
    let both = with(".jumpcloud", "api_key_file = \"key\"");
    assert!(world.only(&both).message.contains("two ways"));

    let key_only = both
        .replace("client_id = \"jumpcloud-id\"", "")
        .replace("client_secret_file = \"jumpcloud_secret\"", "");
    for text in [
        key_only.clone(),
        key_only.replace("api_key_file = \"key\"", "api_key = \"api-key\""),
    ] {
        let credentials = world.connector(&text).jumpcloud.credentials;
        assert!(matches!(&credentials, JumpCloudCredentials::ApiKey(key) if key.expose() == "api-key"));
    }
    let unsendable = key_only.replace("api_key_file = \"key\"", "api_key = \"clé\"");
    assert_eq!(world.only(&unsendable).key, "connectors.main.jumpcloud.api_key");

    // With a key there is no token to fetch: the console's URL is enough.
    let own = key_only.replacen("api_key_file", "console_url = \"https://c.example\"\napi_key_file", 1);
    let own = own.replace("[connectors.main.jumpcloud]", "[connectors.main.jumpcloud]\n#");
    let own: String = own
        .rsplitn(2, "region = \"us\"")
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    assert_eq!(
        world.connector(&own).jumpcloud.console_url.as_str(),
        "https://c.example/"
    );

    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__JUMPCLOUD__API_KEY", "env-key");
    let credentials = world.connector(SMALL).jumpcloud.credentials;
    assert!(matches!(&credentials, JumpCloudCredentials::ApiKey(key) if key.expose() == "env-key"));
}

#[test]
fn a_bare_name_is_looked_up_among_the_credentials_first() {
    let mut world = World::new();
    world.write("credentials/torq_secret", "from-systemd", 0o400);
    assert_eq!(world.connector(SMALL).torq.client_secret.expose(), "t0rq-s3cret");
    let credentials = world.path("credentials").display().to_string();
    world.set("CREDENTIALS_DIRECTORY", &credentials);
    let connector = world.connector(SMALL);
    assert_eq!(connector.torq.client_secret.expose(), "from-systemd");
    let JumpCloudCredentials::ServiceAccount { client_secret, .. } = connector.jumpcloud.credentials else {
        panic!("a service account was configured");
    };
    assert_eq!(client_secret.expose(), "jumpcl0ud-s3cret");
    // A name with a slash is a path.
    let connector = world.connector(&with(".torq", "client_secret_file = \"./torq_secret\""));
    assert_eq!(connector.torq.client_secret.expose(), "t0rq-s3cret");
}

#[test]
fn a_file_that_is_not_there_is_told_with_every_place_that_was_tried() {
    let mut world = World::new();
    let credentials = world.path("credentials").display().to_string();
    world.set("CREDENTIALS_DIRECTORY", &credentials);
    let problem = world.only(&with(".torq", "client_secret_file = \"nothing\""));
    assert_eq!(problem.key, format!("{TORQ}.client_secret_file"));
    for place in ["credentials/nothing", "nothing"] {
        let place = world.path(place).display().to_string();
        assert!(problem.message.contains(&place), "{problem}");
    }
}

#[test]
fn a_secret_that_others_can_touch_is_refused() {
    let mut world = World::new();
    let credentials = world.path("credentials").display().to_string();
    world.set("CREDENTIALS_DIRECTORY", &credentials);
    for mode in [0o644, 0o604, 0o602, 0o601, 0o777] {
        for name in ["open", "credentials/open"] {
            let path = world.write(name, "hush", mode);
            let problem = world.only(&with(".torq", "client_secret_file = \"open\""));
            let shown = problem.to_string();
            assert!(shown.contains(&format!("chmod 600 {}", path.display())), "{shown}");
            assert!(
                shown.contains(&format!("mode {mode:04o}")) && !shown.contains("hush"),
                "{shown}"
            );
        }
        std::fs::remove_file(world.path("credentials/open")).unwrap();
    }
    for mode in [0o600, 0o400, 0o640, 0o660] {
        world.write("open", "fine", mode);
        world.good(&with(".torq", "client_secret_file = \"open\""));
    }
}

#[test]
fn a_literal_secret_in_a_file_that_everybody_can_read_is_refused() {
    let mut world = World::new();
    let text = without(".torq", "client_secret_file").replace("torq-id\"", "torq-id\"\nclient_secret = \"hush\"");
    for mode in [None, Some(0o600), Some(0o100640), Some(0o660)] {
        world.file_mode = mode;
        let secret = world.connector(&text).torq.client_secret;
        assert_eq!((secret.expose(), &secret.source), ("hush", &SecretSource::Literal));
    }
    world.file_mode = Some(0o100644);
    let problem = world.only(&text);
    let shown = problem.to_string();
    assert!(
        shown.contains("mode 0644") && shown.contains("chmod 600") && !shown.contains("hush"),
        "{shown}"
    );
    // Files and the environment do not stand in it.
    world.good(SMALL);
    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET", "from-env");
    world.good(SMALL);
}

#[test]
fn what_is_in_a_file_is_one_line_of_text() {
    let world = World::new();
    let text = with(".torq", "client_secret_file = \"s\"");
    for (content, secret) in [
        ("plain", "plain"),
        ("unix\n", "unix"),
        ("windows\r\n", "windows"),
        ("lines\n\n\r\n", "lines"),
        (" spaces \n", " spaces "),
        ("\u{feff}marked\r\n", "marked"),
        ("0123456", "0123456"),
    ] {
        world.write("s", content, 0o600);
        assert_eq!(world.connector(&text).torq.client_secret.expose(), secret);
    }
    for (content, advice) in [
        (b"".to_vec(), "empty"),
        (b"\n".to_vec(), "empty"),
        (b"hush\nhush".to_vec(), "one line"),
        (b"hush\thush".to_vec(), "control"),
        (b"hush\0".to_vec(), "control"),
        (b"hush\xff".to_vec(), "UTF-8"),
        (vec![b'h'; 64 * 1024 + 1], "64 KiB"),
        (b"<hush>".to_vec(), "placeholder"),
        ("…".as_bytes().to_vec(), "placeholder"),
    ] {
        let path = world.write("s", content, 0o600);
        let shown = world.only(&text).to_string();
        assert!(shown.contains(advice) && !shown.contains("hush"), "{shown}");
        assert!(shown.contains(&path.display().to_string()), "{shown}");
    }
}

#[test]
fn a_folder_is_no_secret() {
    let problem = World::new().only(&with(".torq", "client_secret_file = \"credentials\""));
    assert!(problem.message.contains("not a regular file"), "{problem}");
}

#[test]
fn a_secret_of_another_type_is_not_shown() {
    let world = World::new();
    for (value, found) in [
        ("123456", "an integer"),
        ("1234.56", "a number"),
        ("true", "true or false"),
        ("[\"123456\"]", "a list"),
        ("{ a = \"123456\" }", "a section"),
        ("123456789012345678901234567890", "a number"),
    ] {
        for key in ["client_secret", "client_secret_file"] {
            let text =
                without(".torq", "client_secret_file").replace("torq-id\"", &format!("torq-id\"\n{key} = {value}"));
            let problem = world.only(&text);
            assert_eq!(problem.key, format!("{TORQ}.{key}"));
            assert_eq!(problem.found.as_deref(), Some(found));
            assert!(!problem.to_string().contains("1234"), "{problem}");
        }
    }
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let mut world = World::new();
    world.write("page", "p4ge-s3cret", 0o600);
    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET", "env-s3cret");
    let config = world.good(&with_general("http", "password_file = \"page\""));
    assert_eq!(config.http.password.as_ref().unwrap().expose(), "p4ge-s3cret");
    for shown in [format!("{config:?}"), format!("{config:#?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("REDACTED"));
    }
    // Also not when everything else is wrong.
    let shown = world
        .parse("connectors = \"l1teral-s3cret\"\nclient_secret = \"s3cret\"")
        .unwrap_err();
    assert!(!format!("{shown} {shown:?}").contains("s3cret"), "{shown}");
}

#[test]
fn a_secret_is_read_again_from_its_file() {
    let world = World::new();
    let secret = world.connector(SMALL).torq.client_secret;
    assert!(secret.reload().unwrap().is_none());
    world.write("torq_secret", "t0rq-s3cret\r\n", 0o600);
    assert!(secret.reload().unwrap().is_none());
    world.write("torq_secret", "rotated\n", 0o600);
    let rotated = secret.reload().unwrap().unwrap();
    assert_eq!((rotated.expose(), &rotated.source), ("rotated", &secret.source));

    world.write("torq_secret", "hush-now", 0o644);
    let problem = secret.reload().unwrap_err();
    assert!(
        problem.message.contains("chmod 600") && !problem.to_string().contains("hush"),
        "{problem}"
    );
    std::fs::remove_file(world.path("torq_secret")).unwrap();
    assert!(secret.reload().unwrap_err().message.contains("cannot be read"));

    assert!(Secret::new("x", SecretSource::Environment).reload().unwrap().is_none());
    assert!(Secret::new("x", SecretSource::Literal).reload().unwrap().is_none());
}

#[test]
fn a_configuration_that_was_read_before_its_secret_changed_does_not_bring_the_old_one_back() {
    let world = World::new();
    let read_before = world.connector(SMALL);
    let mut in_hand = read_before.clone();
    world.write("torq_secret", "rotated", 0o600);
    assert!(in_hand.read_secrets_again().changed);
    let kept_by = |fresh: &Connector| {
        let mut fresh = fresh.clone();
        fresh.keep_secrets_of(&in_hand);
        fresh.torq.client_secret.expose().to_owned()
    };
    assert_eq!(kept_by(&read_before), "rotated");
    let mut kept = read_before.clone();
    kept.keep_secrets_of(&in_hand);
    assert_eq!(kept, in_hand, "nothing changed: no run ends for it");

    // What is in the file when it is read is the newest, also when that is the old one again, or a third.
    for (newest, kept) in [("t0rq-s3cret", "t0rq-s3cret"), ("third", "third")] {
        world.write("torq_secret", newest, 0o600);
        assert_eq!(kept_by(&world.connector(SMALL)), kept);
    }
    // A third that was not read yet is no reason to stay with the second: who looks next finds that it changed.
    assert_eq!(kept_by(&read_before), "t0rq-s3cret");
    // From another file it is another secret.
    world.write("torq_secret", "rotated", 0o600);
    world.write("other", "t0rq-s3cret", 0o600);
    let elsewhere = world.connector(&with(".torq", "client_secret_file = \"other\""));
    assert_eq!(kept_by(&elsewhere), "t0rq-s3cret");
}
