//! Where a person is told, and what is said about a section that cannot tell anybody.

use super::*;

fn notify(lines: &str) -> String {
    format!("{SMALL}\n[connectors.main.notify]\n{lines}\n")
}

#[test]
fn nobody_is_told_unless_it_is_asked_for() {
    let world = World::new();
    assert_eq!(world.connector(SMALL).notify, None);
    assert_eq!(world.connector(&notify("")).notify, None);
    let told = world
        .connector(&notify("url = \"https://hooks.example.com/a?b=c\""))
        .notify
        .unwrap();
    let webhook = told.webhook.unwrap();
    assert_eq!(webhook.url.expose().as_str(), "https://hooks.example.com/a?b=c");
    assert_eq!((webhook.format, webhook.secret), (HookFormat::Json, None));
    assert_eq!(told.command, None);
    assert_eq!(told.occasions, Occasion::ALL);
}

#[test]
fn both_ways_at_once() {
    let mut world = World::new();
    world.write("hook", "s1gning\n", 0o600);
    world.set(
        "TORQ_CONNECTOR__CONNECTORS__MAIN__NOTIFY__URL",
        "https://hooks.example.com/elsewhere",
    );
    let text = notify(
        "format = \"slack\"\nsecret_file = \"hook\"\ncommand = [\"/bin/a\", \"-v\", \"-v\"]\nevents = [\"silent\", \"held\", \"held\"]",
    );
    let told = world.connector(&text).notify.unwrap();
    let webhook = told.webhook.unwrap();
    assert_eq!(webhook.url.host(), "hooks.example.com");
    assert_eq!(webhook.format, HookFormat::Slack);
    assert_eq!(webhook.secret.unwrap().expose(), "s1gning");
    assert_eq!(
        told.command.unwrap(),
        ["/bin/a", "-v", "-v"],
        "an argument may come twice"
    );
    assert_eq!(told.occasions, [Occasion::Silent, Occasion::Held]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_no_address_is_shown() {
    let world = World::new();
    let problems = world.bad(&notify(
        "url = \"http://hooks.example.com/t0ken\"\nformat = \"xml\"\nsecret = \"\"\ncommand = [\"sh\", \"-c\"]\nevents = [\"silence\"]\nurll = 1",
    ));
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    for (key, words) in [
        ("notify.url", "https://"),
        ("notify.format", "\"json\" or \"slack\""),
        ("notify.secret", "empty"),
        ("notify.command", "absolute path"),
        ("notify.events", "reconnect_required, not_licensed"),
        ("notify.urll", "did you mean \"url\"?"),
    ] {
        let found = told
            .iter()
            .any(|line| line.contains(&format!("connectors.main.{key}")) && line.contains(words));
        assert!(found, "{key}: {told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
    assert!(!told.concat().contains("t0ken"));
    for line in [
        "url = \"https://user:t0ken@hooks.example.com\"",
        "url = \"ftp://hooks.example.com/t0ken\"",
        "url = \"https://hooks.example.com/t0ken#x\"",
        "url = \"t0ken\"",
    ] {
        let problem = world.only(&notify(line));
        assert!(!problem.to_string().contains("t0ken"), "{problem}");
    }
}

#[test]
fn settings_that_tell_nobody_are_no_settings() {
    let world = World::new();
    for line in ["format = \"json\"", "secret = \"s1gning\"", "events = [\"held\"]"] {
        let problem = world.only(&notify(line));
        assert!(problem.message.contains("give url"), "{problem}");
    }
    let problem = world.only(&notify("command = [\"/bin/true\"]\nevents = []"));
    assert!(problem.message.contains("leave events out"), "{problem}");
    let problem = world.only(&notify("command = []"));
    assert!(problem.message.contains("absolute path"), "{problem}");
}

#[test]
fn an_address_that_is_a_secret_is_not_for_everybody() {
    let mut world = World::new();
    world.file_mode = Some(0o644);
    let text = notify("url = \"https://hooks.slack.com/services/t0ken\"\nformat = \"slack\"");
    let problem = world.only(&text);
    assert!(problem.to_string().contains("chmod 600"), "{problem}");
    assert!(!problem.to_string().contains("t0ken"));
    world.file_mode = Some(0o600);
    let connector = world.connector(&text);
    assert!(!format!("{connector:?}").contains("t0ken"), "{connector:?}");
    world.file_mode = Some(0o644);
    world.good(&notify("url = \"https://hooks.example.com/\""));
}
