//! `init`: a person at a terminal, and a script. What passes the test is saved, what does not is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use torq_connector::sandbox::Sandbox;

use crate::binary::{Ran, bare, files, finish, sandbox};
use crate::terminal::Terminal;

const TORQ_SECRET: &str = "sandbox-torq-secret";
const JUMPCLOUD_SECRET: &str = "sandbox-jumpcloud-secret";

struct Desk {
    dir: TempDir,
    addresses: Vec<String>,
}

impl Desk {
    fn new(sandbox: &Sandbox) -> Self {
        let addresses = [
            ("--torq-api-url", sandbox.torq_api_url()),
            ("--torq-token-url", sandbox.torq_token_url()),
            ("--jumpcloud-console-url", sandbox.console_url()),
            ("--jumpcloud-token-url", sandbox.jumpcloud_token_url()),
        ];
        Self {
            dir: tempfile::tempdir().unwrap(),
            addresses: addresses
                .into_iter()
                .flat_map(|(flag, url)| [flag.to_owned(), url])
                .collect(),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("etc/config.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = bare();
        command.arg("--config").arg(self.file()).args(args);
        command
    }

    fn init(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["init"]);
        command.args(&self.addresses).args(args);
        command
    }

    async fn scripted(&self, args: &[&str], input: &str) -> Ran {
        self.runs_with(self.init(args), input).await
    }

    async fn runs_with(&self, mut command: Command, input: &str) -> Ran {
        let (reader, mut writer) = tokio::net::unix::pipe::pipe()
            .map(|(writer, reader)| (reader, writer))
            .unwrap();
        writer.write_all(input.as_bytes()).await.unwrap();
        drop(writer);
        command.stdin(Stdio::from(reader.into_blocking_fd().unwrap()));
        finish(command).await
    }

    fn is_empty(&self) -> bool {
        files(self.dir.path()).is_empty()
    }
}

const FLAGS: [&str; 12] = [
    "--torq-region",
    "us",
    "--torq-client-id",
    "sandbox-torq-id",
    "--torq-secret-stdin",
    "--jumpcloud-region",
    "eu",
    "--jumpcloud-client-id",
    "sandbox-jumpcloud-id",
    "--jumpcloud-secret-stdin",
    "--key-expires",
    "2099-01-01",
];

fn named<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["--name", name].iter().chain(&FLAGS).chain(more).copied().collect()
}

fn secrets() -> String {
    format!("{TORQ_SECRET}\n{JUMPCLOUD_SECRET}\n")
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_and_what_they_say_is_tested_and_saved() {
    let sandbox = sandbox(3).await;
    let desk = Desk::new(&sandbox);
    let state = desk.dir.path().join("state");
    let mut terminal = Terminal::start(desk.init(&["--state-dir", state.to_str().unwrap()]), (100, 40));
    terminal.answers("Name of the connector [main]: ", "not a name").await;
    terminal.reads("cannot be a name").await;
    terminal.types("\n");
    terminal
        .answers("Region of the workspace (us, eu) [us]: ", "mars")
        .await;
    terminal.reads("give one of us, eu").await;
    terminal.types("\n");
    terminal.answers("Client id: ", "sandbox-torq-id").await;
    terminal.reads("Client secret (not shown): ").await;
    assert!(!terminal.echoes());
    terminal.types(&format!("wrong\u{15}{TORQ_SECRET}x\u{7f}\n"));
    terminal.answers("Expires on", "2099-01-01").await;
    assert!(terminal.echoes());
    terminal
        .answers("Region of the organisation (us, eu, in) [us]: ", "")
        .await;
    terminal
        .answers("Client id of the service account", "sandbox-jumpcloud-id")
        .await;
    terminal.reads_times("Client secret (not shown): ", 2).await;
    terminal.types(&format!("{JUMPCLOUD_SECRET}\n"));
    terminal.answers("Organisation id", "").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    for words in [
        "JumpCloud licence",
        "[connectors.main] is saved in a new",
        "sync --dry-run main",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(
        !shown.contains("secret-") && !shown.contains(TORQ_SECRET) && !shown.contains(JUMPCLOUD_SECRET),
        "{shown}"
    );

    let text = std::fs::read_to_string(desk.file()).unwrap();
    assert!(
        !text.contains(TORQ_SECRET) && text.contains("key_expires = 2099-01-01"),
        "{text}"
    );
    let folder = desk.dir.path().join("etc");
    for (file, secret) in [
        ("torq_client_secret", TORQ_SECRET),
        ("jumpcloud_client_secret", JUMPCLOUD_SECRET),
    ] {
        let path = folder.join(file);
        assert_eq!(
            (mode(&path), std::fs::read_to_string(&path).unwrap()),
            (0o600, format!("{secret}\n"))
        );
    }
    assert!(sandbox.world().writes().is_empty(), "nothing was written by the test");
    finish(desk.command(&["check"])).await.exits(0);
    finish(desk.command(&["sync"])).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_the_test_is_saved_only_when_a_person_says_so() {
    let sandbox = sandbox(3).await;
    let desk = Desk::new(&sandbox);
    let start = || {
        let mut flags = named("main", &[]);
        flags.retain(|flag| !flag.ends_with("-stdin"));
        Terminal::start(desk.init(&flags), (100, 40))
    };
    let mut terminal = start();
    terminal.answers("Client secret (not shown): ", "another-secret").await;
    terminal.reads_times("Client secret (not shown): ", 2).await;
    terminal.types(&format!("{JUMPCLOUD_SECRET}\n"));
    terminal.answers("Organisation id", "").await;
    terminal.answers("[a/y/N]: ", "").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 77, "{shown}");
    assert!(
        shown.contains("Nothing is saved.") && shown.contains("Torq credentials"),
        "{shown}"
    );
    assert!(!shown.contains("another-secret"));
    assert!(desk.is_empty());

    // What is advised is about what was typed, and not about how it got there.
    assert!(
        shown.contains("the client secret (as you gave it)") && shown.contains("then test it again"),
        "{shown}"
    );
    assert!(
        !shown.contains("environment variable") && !shown.contains(" check main"),
        "{shown}"
    );

    // Ctrl-C while a secret is typed leaves the terminal as it was.
    let mut terminal = start();
    terminal.reads("Client secret (not shown): ").await;
    terminal.types("half-of-a-sec\u{3}");
    terminal.reads("Nothing is saved.").await;
    assert!(terminal.echoes());
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 64);
    assert!(!shown.contains("half-of"), "{shown}");
    assert!(desk.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_the_test_is_corrected_without_typing_all_of_it_again() {
    let sandbox = sandbox(3).await;
    let desk = Desk::new(&sandbox);
    let mut flags = named("main.eu", &[]);
    flags.retain(|flag| !flag.ends_with("-stdin"));
    let mut terminal = Terminal::start(desk.init(&flags), (100, 40));
    terminal.answers("Client secret (not shown): ", "another-secret").await;
    terminal.reads_times("Client secret (not shown): ", 2).await;
    terminal.types(&format!("{JUMPCLOUD_SECRET}\n"));
    terminal.answers("Organisation id", "").await;
    terminal
        .answers("a: correct what failed, and test again; y: save", "a")
        .await;
    terminal.answers("Region of the workspace (us, eu) [us]: ", "eu").await;
    terminal.answers("Client id [sandbox-torq-id]: ", "").await;
    terminal.reads("Client secret (not shown; empty: as before): ").await;
    terminal.types(&format!("{TORQ_SECRET}\n"));
    terminal.answers("Expires on (-: none) [2099-01-01]: ", "-").await;
    // Of JumpCloud, nothing was wrong.
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!(shown.matches("Region of the organisation").count(), 0, "{shown}");
    assert_eq!(shown.matches("Organisation id").count(), 1, "{shown}");
    assert!(
        shown.contains("expires on 2099-01-01, as you said") && !shown.contains("says the configuration"),
        "{shown}"
    );
    assert!(shown.contains("[connectors.\"main.eu\"] is saved"), "{shown}");
    let text = std::fs::read_to_string(desk.file()).unwrap();
    assert!(
        text.contains("region = \"eu\"") && !text.contains("key_expires"),
        "{text}"
    );
    finish(desk.command(&["check"])).await.exits(0);

    // The other side by itself.
    let mut flags = named("other", &[]);
    flags.retain(|flag| !flag.ends_with("-stdin"));
    let mut terminal = Terminal::start(desk.init(&flags), (100, 40));
    terminal.answers("Client secret (not shown): ", TORQ_SECRET).await;
    terminal.reads_times("Client secret (not shown): ", 2).await;
    terminal.types("another-secret\n");
    terminal.answers("Organisation id", "").await;
    terminal.answers("[a/y/N]: ", "a").await;
    terminal
        .answers("Region of the organisation (us, eu, in) [eu]: ", "")
        .await;
    terminal
        .answers("service account (-: none) [sandbox-jumpcloud-id]: ", "")
        .await;
    terminal.reads("Client secret (not shown; empty: as before): ").await;
    terminal.types(&format!("{JUMPCLOUD_SECRET}\n"));
    terminal.reads_times("Organisation id", 2).await;
    terminal.types("\n");
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("Region of the workspace"), "{shown}");

    // A file of an earlier time is told of before anything else is asked.
    std::fs::write(desk.dir.path().join("etc/old_torq_client_secret"), "mine").unwrap();
    let mut terminal = Terminal::start(desk.init(&[]), (100, 40));
    terminal.answers("Name of the connector: ", "old").await;
    terminal.reads("old_torq_client_secret is there already").await;
    terminal.types("\u{4}");
    assert_eq!(terminal.ends().await.0, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_says_everything_by_flags_and_standard_input() {
    let sandbox = sandbox(3).await;
    let desk = Desk::new(&sandbox);
    let ran = desk.scripted(&["--torq-region", "us"], "").await.exits(64);
    ran.tells(&[
        "missing are:",
        "--name",
        "--torq-client-id",
        "--torq-secret-file",
        "--jumpcloud-region",
        "Nothing is saved",
    ]);
    desk.scripted(&named("main", &[]), TORQ_SECRET)
        .await
        .exits(64)
        .tells(&["no line with the secret of JumpCloud"]);
    let wrong = format!("wrong-one\n{JUMPCLOUD_SECRET}\n");
    let ran = desk.scripted(&named("main", &[]), &wrong).await.exits(77);
    ran.tells(&["--save-anyway"]).hides(&["wrong-one"]);
    assert!(desk.is_empty());

    let state = desk.dir.path().join("state");
    let with_state = ["--state-dir", state.to_str().unwrap()];
    let ran = desk.scripted(&named("main", &with_state), &secrets()).await.exits(0);
    assert_eq!(ran.out, "");
    let first = std::fs::read_to_string(desk.file()).unwrap();
    assert_eq!(mode(&desk.file()), 0o644);
    finish(desk.command(&["check"])).await.exits(0);

    // What is there stays, byte by byte; a name is given once.
    desk.scripted(&named("main", &[]), &secrets())
        .await
        .exits(64)
        .tells(&["the connector main is configured already"]);
    assert_eq!(std::fs::read_to_string(desk.file()).unwrap(), first);
    let commented = format!("# by hand\n{first}# the end");
    std::fs::write(desk.file(), &commented).unwrap();
    std::fs::set_permissions(desk.file(), PermissionsExt::from_mode(0o640)).unwrap();
    sandbox.world().clear_requests();
    desk.scripted(&named("a.b", &["--no-check"]), &secrets()).await.exits(0);
    assert!(sandbox.world().requests().is_empty(), "nothing is sent");
    let both = std::fs::read_to_string(desk.file()).unwrap();
    assert!(both.starts_with(&commented), "{both}");
    assert_eq!(mode(&desk.file()), 0o640);
    finish(desk.command(&["check", "a.b"])).await.exits(0);

    // A file that is there is no secret's to overwrite, and a failed test can be overridden.
    let squatter = desk.dir.path().join("etc/c_torq_client_secret");
    std::fs::write(&squatter, "mine").unwrap();
    desk.scripted(&named("c", &[]), &secrets())
        .await
        .exits(64)
        .tells(&["is there already, and nothing is overwritten"]);
    assert_eq!(std::fs::read_to_string(&squatter).unwrap(), "mine");
    desk.scripted(&named("d", &["--save-anyway"]), &wrong).await.exits(77);
    let text = std::fs::read_to_string(desk.file()).unwrap();
    assert!(text.contains("[connectors.d.torq]"));
    // An API key in a file instead of a service account.
    let key = desk.dir.path().join("key");
    std::fs::write(&key, "sandbox-api-key").unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    sandbox.world().set_jumpcloud_api_key("sandbox-api-key");
    let by_key = [
        "--name",
        "e",
        "--torq-region",
        "us",
        "--torq-client-id",
        "sandbox-torq-id",
        "--torq-secret-stdin",
        "--jumpcloud-region",
        "in",
        "--jumpcloud-api-key-file",
        key.to_str().unwrap(),
    ];
    desk.scripted(&by_key, &secrets()).await.exits(0);
    finish(desk.command(&["check", "e"])).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_works_with_the_same_is_told_of() {
    let sandbox = sandbox(3).await;
    let desk = Desk::new(&sandbox);
    let state = desk.dir.path().join("state");
    let with_state = ["--state-dir", state.to_str().unwrap()];
    let ran = desk.scripted(&named("main", &with_state), &secrets()).await.exits(0);
    assert!(!ran.err.contains("note: the connector"), "{}", ran.err);
    let same_key = "note: the connector main has the same Torq API key";
    let same_application = "note: the connector main delivers to the same application (torq)";

    // By what is configured, also untested.
    let ran = desk
        .scripted(&named("twin", &["--no-check"]), &secrets())
        .await
        .exits(0);
    ran.tells(&[same_key, same_application]);
    let elsewhere = named(
        "apart",
        &[
            "--no-check",
            "--org-id",
            "another",
            "--torq-api-url",
            "http://127.0.0.1:9/x",
        ],
    );
    let mut command = desk.command(&["init"]);
    command.args(&desk.addresses[2..]).args(elsewhere);
    let ran = desk.runs_with(command, &secrets()).await.exits(0);
    assert!(!ran.err.contains("note: the connector main"), "{}", ran.err);

    // By what is there: the credentials differ, and lead to the same application.
    let key = desk.dir.path().join("key");
    std::fs::write(&key, "sandbox-api-key").unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    sandbox.world().set_jumpcloud_api_key("sandbox-api-key");
    let mut by_key = named("key", &["--jumpcloud-api-key-file", key.to_str().unwrap()]);
    by_key.retain(|flag| {
        ![
            "--jumpcloud-client-id",
            "sandbox-jumpcloud-id",
            "--jumpcloud-secret-stdin",
        ]
        .contains(flag)
    });
    let ran = desk.scripted(&by_key, TORQ_SECRET).await.exits(0);
    ran.tells(&[same_key]);
    finish(desk.command(&["sync", "main"])).await.exits(0);
    by_key[1] = "again";
    desk.scripted(&by_key, TORQ_SECRET)
        .await
        .exits(0)
        .tells(&[same_application]);
}
