//! What only a terminal makes a difference to: a pager for what does not fit, and a status that is drawn again and again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use super::place;
use crate::binary::{Connector, Place, sandbox};
use crate::terminal::Terminal;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_goes_through_the_pager() {
    let sandbox = sandbox(60).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let email = sandbox.world().people()[0].email.clone();
    let shown = async |args: &[&str], pager: &str, rows: u16| {
        let mut command = place.command(args);
        command.env("PAGER", pager).env("NO_COLOR", "1");
        Terminal::start(command, (200, rows)).ends().await
    };
    let marking = "sed s/^/paged:/";
    let users = ["users"];
    let (code, text) = shown(&users, marking, 24).await;
    assert_eq!(code, 0);
    assert!(
        text.contains("paged:USER") && text.contains(&format!("paged:{email}")),
        "{text}"
    );
    // It fits; it is not wanted; it is no table; there is no pager, or it fails: nobody notices.
    for (args, pager, rows) in [
        (&users[..], marking, 100),
        (&["users", "--no-pager"], marking, 24),
        (&["users", "--format", "csv"], marking, 24),
        (&users, "", 24),
        (&users, "no-such-pager-anywhere", 24),
        (&["report", "access", "--no-pager"], marking, 24),
    ] {
        let (code, text) = shown(args, pager, rows).await;
        assert_eq!(code, 0, "{args:?}");
        assert!(
            !text.contains("paged:") && text.contains(&email),
            "{args:?} {pager} {text}"
        );
    }
    // Which one is missing is said in our words, where somebody chose it.
    let (_, text) = shown(&users, "no-such-pager-anywhere", 24).await;
    assert!(
        text.contains("there is no pager no-such-pager-anywhere (the environment variable PAGER)")
            && !text.contains("not found"),
        "{text}"
    );
    // A pager that is left early, and one that fails, change nothing about the end.
    for pager in ["head -1", "exit 3"] {
        let (code, _) = shown(&["report", "access"], pager, 24).await;
        assert_eq!(code, 0, "{pager}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_watched_until_ctrl_c() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let terminal = Terminal::start(place.command(&["status", "--watch=1"]), (100, 20));
    terminal.reads("\u{1b}[?25l").await;
    terminal.reads_times("connected", 2).await;
    // The terminal is nobody's controlling one, so Ctrl-C is a signal here.
    let pid = rustix::process::Pid::from_raw(i32::try_from(terminal.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("\u{1b}[?25h"), "the cursor is back: {shown:?}");

    // Elsewhere it is plain text, one after the other; a reader that goes away ends it.
    let mut command = place.command(&["status", "--watch=1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut headers = 0;
    while headers < 2 {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(!line.contains('\u{1b}'), "{line:?}");
        headers += usize::from(line.starts_with("CONNECTOR"));
    }
    drop(lines);
    assert!(child.wait().await.unwrap().success());
    place.run(&["status", "--watch", "--format", "json"]).await.exits(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_connectors_those_that_need_a_look_come_first_or_alone() {
    let sandbox = sandbox(3).await;
    let expired = Connector::new("zero", &sandbox).with("torq.client_secret", "wrong");
    let expiring = Connector::new("yes", &sandbox);
    let place = Place::new(&[
        Connector::new("alpha", &sandbox),
        Connector::new("beta", &sandbox),
        expiring,
        expired,
    ]);
    let soon = jiff::Timestamp::now()
        .to_zoned_datetime(jiff::tz::TimeZone::UTC)
        .date()
        .tomorrow()
        .unwrap();
    place.run(&["sync"]).await.exits(77);
    let mut text = std::fs::read_to_string(place.path("config.toml")).unwrap();
    let torq = "[connectors.yes.torq]\n";
    text = match text.contains(torq) {
        true => text.replace(torq, &format!("{torq}key_expires = {soon}\n")),
        false => text.replace(
            "[connectors.yes]\n",
            &format!("[connectors.yes]\ntorq.key_expires = {soon}\n"),
        ),
    };
    place.write("config.toml", &text);
    let ran = place.run(&["status"]).await.exits(0);
    let order: Vec<usize> = ["\nzero ", "\nyes ", "\nalpha ", "\nbeta "]
        .iter()
        .map(|name| ran.out.find(name).unwrap())
        .collect();
    assert!(order.is_sorted(), "{}", ran.out);
    assert!(ran.out.contains("the Torq API key expires in 1 day"), "{}", ran.out);
    // Two matters, and what to do about each, in their own columns.
    place.run(&["pause", "yes"]).await.exits(0);
    place.run(&["status", "yes"]).await.exits(0).shows(&[
        "; the Torq API key expires in 1 day",
        "resume yes; and: extend it in Torq",
    ]);
    place.run(&["resume", "yes"]).await.exits(0);
    let ran = place
        .run(&["status", "--problems"])
        .await
        .exits(0)
        .tells(&["the other 2 connectors are well"]);
    assert!(
        ran.out.contains("zero") && ran.out.contains("yes") && !ran.out.contains("alpha"),
        "{}",
        ran.out
    );
    let json = place
        .run(&["status", "--problems", "--format", "json"])
        .await
        .exits(0)
        .json();
    assert_eq!(json["connectors"].as_array().unwrap().len(), 2);
    place
        .run(&["status", "alpha", "--problems"])
        .await
        .exits(0)
        .tells(&["the connector is well"]);
    // Nobody need act on what a person paused, but it is not well.
    place.run(&["pause", "alpha"]).await.exits(0);
    let ran = place.run(&["status", "--problems"]).await.exits(0);
    let ran = ran.tells(&["the other connector is well"]);
    let order: Vec<usize> = ["\nzero ", "\nyes ", "\nalpha "]
        .iter()
        .map(|name| ran.out.find(name).unwrap())
        .collect();
    assert!(order.is_sorted() && !ran.out.contains("beta"), "{}", ran.out);
    ran.shows(&["paused by a person on ", "resume alpha"]);
}
