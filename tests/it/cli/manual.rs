//! Manual pages, completions and the version: all from the command line's own definition.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::binary::{bare, finish};

async fn run(args: &[&str]) -> crate::binary::Ran {
    let mut command = bare();
    command.args(args);
    finish(command).await
}

/// The commands that the help tells of.
async fn commands() -> Vec<String> {
    let help = run(&["--help"]).await.exits(0).out;
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = listed
        .lines()
        // What is wrapped is indented further.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect();
    assert!(names.contains(&"run".to_owned()) && names.len() > 12, "{names:?}");
    names
}

#[tokio::test]
async fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("man");
    run(&["manual", into.to_str().unwrap()]).await.exits(0);
    let main = std::fs::read_to_string(into.join("torq-connector.1")).unwrap();
    for name in commands().await {
        let page = std::fs::read_to_string(into.join(format!("torq-connector-{name}.1")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.contains(&format!("torq-connector-{name}")) || page.contains(&name),
            "{page}"
        );
        assert!(
            main.contains(&format!("torq\\-connector\\-{name}(1)")),
            "{name} is not in the first page"
        );
    }
    // What the first page says of exit codes is what the help says.
    assert!(main.contains("Exit codes: 0 done"), "{main}");
    // Not for people: how packages are made.
    assert!(!main.contains("manual(1)"));
    run(&["manual", "/proc/nowhere"])
        .await
        .exits(1)
        .tells(&["cannot write into /proc/nowhere"]);
}

#[tokio::test]
async fn every_command_can_be_completed_in_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell]).await.exits(0);
        assert_eq!(ran.err, "");
        for name in commands().await {
            assert!(ran.out.contains(&name), "{name} in {shell}");
        }
        assert!(!ran.out.contains("manual"), "what is hidden is not offered in {shell}");
    }
    run(&["completions", "tcsh"]).await.exits(64);
}

#[tokio::test]
async fn the_version_says_commit_and_target() {
    let ran = run(&["--version"]).await.exits(0);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert_eq!(lines[0], concat!("torq-connector ", env!("CARGO_PKG_VERSION")));
    assert!(
        lines[1]
            .strip_prefix("commit: ")
            .is_some_and(|commit| !commit.is_empty())
    );
    assert!(
        lines[2]
            .strip_prefix("target: ")
            .is_some_and(|target| target.split('-').count() >= 3)
    );
    let ran = run(&["-V"]).await.exits(0);
    assert_eq!(ran.out.trim_end(), lines[0], "short, for scripts");
}

#[tokio::test]
async fn in_bash_what_comes_after_a_command_is_completed_too() {
    let script = run(&["completions", "bash"]).await.exits(0).out;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("completions");
    std::fs::write(&path, script).unwrap();
    for (words, wanted) in [
        (["torq-connector", "status", "--"], "--problems"),
        (["torq-connector", "report", "a"], "access"),
    ] {
        let asks = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD=2; _torq__connector torq-connector {:?} {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            path.display(),
            words.join(" "),
            words[2],
            words[1],
        );
        let mut bash = tokio::process::Command::new("bash");
        bash.args(["--norc", "-c", &asks]).stdin(std::process::Stdio::null());
        let ran = finish(bash).await.exits(0);
        assert!(
            ran.out.lines().any(|offered| offered == wanted),
            "{words:?}: {}{}",
            ran.out,
            ran.err
        );
    }
}
