//! The example file is the documentation of every key, so it must be right.

use std::collections::BTreeSet;

use super::*;
use crate::config::keys::{CONNECTOR, GENERAL};

/// Each setting of the example: section, key, value as written, and whether it is off.
fn settings() -> Vec<(String, String, String, bool)> {
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            continue;
        }
        let (line, off) = match line.strip_prefix("# ") {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        if let Some((key, value)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            let value = value.split("  #").next().unwrap().to_owned();
            settings.push((section.clone(), key.to_owned(), value, off));
        }
    }
    settings
}

#[test]
fn it_works_once_it_is_filled_in() {
    let mut world = World::new();
    world.write("credentials/torq_client_secret", "one\n", 0o400);
    world.write("credentials/jumpcloud_client_secret", "two\n", 0o400);
    let credentials = world.path("credentials").display().to_string();
    world
        .set("CREDENTIALS_DIRECTORY", &credentials)
        .set("TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_ID", "torq-id")
        .set("TORQ_CONNECTOR__CONNECTORS__MAIN__JUMPCLOUD__CLIENT_ID", "jumpcloud-id");
    world.file_mode = Some(0o644);
    let example = world.good(EXAMPLE);
    assert_eq!(example.connectors[0].torq.client_secret.expose(), "one");

    // What it sets is what would be without it.
    world.write("torq_secret", "one", 0o600);
    world.write("jumpcloud_secret", "two", 0o600);
    let small = world.good(SMALL);
    let strip = |config: &Config| {
        let shown = format!("{config:?}");
        shown
            .replace("credentials/torq_client_secret", "torq_secret")
            .replace("credentials/jumpcloud_client_secret", "jumpcloud_secret")
    };
    assert_eq!(strip(&example), strip(&small));
}

#[test]
fn as_it_is_it_says_what_to_fill_in() {
    let problems = World::new().bad(EXAMPLE);
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "connectors.main.torq.client_id",
            "connectors.main.torq.client_secret_file",
            "connectors.main.jumpcloud.client_id",
            "connectors.main.jumpcloud.client_secret_file",
        ]
    );
}

#[test]
fn it_shows_every_key_and_no_other() {
    let shown: BTreeSet<String> = settings()
        .into_iter()
        .map(|(section, key, ..)| crate::config::keys::join(&section, &key))
        .collect();
    let general = GENERAL.iter().map(|(key, _)| (*key).to_owned());
    let connector = CONNECTOR.iter().map(|(key, _)| format!("connectors.main.{key}"));
    assert_eq!(shown, general.chain(connector).collect());
}

#[test]
fn every_setting_that_is_off_works_when_it_is_on() {
    for (section, key, value, off) in settings() {
        if !off {
            continue;
        }
        let world = World::new();
        world.write("jumpcloud_api_key", "key", 0o600);
        world.write("notify_secret", "secret", 0o600);
        world.write("status_page_password", "password", 0o600);
        world.write("proxy-ca.pem", super::files::authority(), 0o600);
        let line = format!("{key} = {value}");
        let text = match section.as_str() {
            "" => format!("{line}\n{SMALL}"),
            // What it is about is off, too.
            "connectors.main.notify" if key != "url" && key != "command" => {
                format!("{SMALL}\n[{section}]\nurl = \"https://hooks.example.com\"\n{line}")
            }
            _ => edit(SMALL, &format!("[{section}]"), &line),
        };
        match key.as_str() {
            // These stand for others, or for a person to fill in.
            "client_secret" | "api_key" | "api_key_file" => {
                let told = world.bad(&text);
                assert!(
                    told.iter()
                        .all(|p| p.message.contains("both given") || p.message.contains("two ways")),
                    "{told:?}"
                );
            }
            _ => {
                world.good(&text);
            }
        }
    }
}
