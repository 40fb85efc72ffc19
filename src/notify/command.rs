//! Running a program of a person's: without a shell, with the message as JSON on its standard input, in a clean environment, within a
//! time. Whatever it starts ends with it when it takes too long.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::errand::{Failed, Why};
use super::message::Message;
use crate::http::clean;

/// How long it may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long its output is waited for after it has ended: something that it started may have it still.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// So much of its output is kept, in bytes.
const MAX_OUTPUT: usize = 8 * 1024;
/// Where programs are looked for by the one that is run.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it, once. Returns how it ended.
pub(super) async fn run(argv: &[String], message: &Message, patience: Duration) -> Result<String, Failed> {
    let failed = |why, words: String| Failed {
        words,
        after: None,
        why,
    };
    let Some((program, arguments)) = argv.split_first() else {
        return Err(failed(Why::Misfit, "the command is empty".to_owned()));
    };
    let mut child = Command::new(program)
        .args(arguments)
        // The environment of this process has secrets in it.
        .env_clear()
        .env("PATH", PATH)
        .env("TORQ_CONNECTOR_NAME", &message.connector)
        .env("TORQ_CONNECTOR_EVENT", message.event.as_str())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(Why::Misfit, format!("{program} cannot be run: {error}")))?;
    let mut group = Group::of(&child);
    let ended = tokio::time::timeout(patience, converse(&mut child, message.json())).await;
    let Ok(ended) = ended else {
        let killed = group.0;
        drop(group);
        // So that nothing is left of it.
        let _ = child.wait().await;
        if let Some(killed) = killed {
            bury(killed).await;
        }
        let words = format!(
            "{program} did not end within {} s, and was killed",
            patience.as_secs_f32()
        );
        return Err(failed(Why::Unavailable, words));
    };
    group.0 = None;
    let (status, said) = ended.map_err(|error| failed(Why::Unavailable, format!("{program}: {error}")))?;
    let said = clean(&said);
    tracing::debug!(connector = %message.connector, program, %status, said, "the command ended");
    if status.success() {
        return Ok(format!("{program} ended with {status}"));
    }
    let words = match said.is_empty() {
        true => format!("{program} ended with {status}"),
        false => format!("{program} ended with {status} (what it said is in the log at level debug)"),
    };
    Err(failed(Why::Unavailable, words))
}

/// Gives it the message, and waits for its end and its words.
async fn converse(child: &mut Child, message: String) -> std::io::Result<(std::process::ExitStatus, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async {
        if let Some(mut stdin) = stdin {
            // It need not read it.
            let _ = stdin.write_all(message.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
    };
    let talk = async {
        let ((), out, err) = tokio::join!(tell, words(stdout), words(stderr));
        format!("{out}{err}")
    };
    tokio::pin!(talk);
    let mut said = None;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            all = &mut talk, if said.is_none() => said = Some(all),
        }
    };
    let said = match said {
        Some(said) => said,
        None => tokio::time::timeout(LAST_WORDS, talk).await.unwrap_or_default(),
    };
    Ok((status, said))
}

/// The beginning of what comes; the rest is read, too, or its writer would wait for ever.
async fn words(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What it started, which ends when this is dropped: at a time-out, or when the process stops.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What a killed program had started becomes a child of the first process of a container, which may be this one.
async fn bury(group: Pid) {
    for _ in 0..50 {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::config::Occasion;

    fn message() -> Message {
        Message::new("main", Occasion::Held, Timestamp::UNIX_EPOCH, "12 removals wait")
    }

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn it_gets_the_message_and_a_clean_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("got");
        let script = format!("{{ pwd; cat; env; }} > {}; echo done", file.display());
        let ended = run(&shell(&script), &message(), PATIENCE).await.unwrap();
        assert_eq!(ended, "/bin/sh ended with exit status: 0");
        let got = fs::read_to_string(file).unwrap();
        let mut lines = got.lines();
        assert_eq!(lines.next(), Some("/"));
        let sent: Message = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(sent, message_like(&sent));
        let mut names: Vec<_> = lines.filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["PATH", "TORQ_CONNECTOR_EVENT", "TORQ_CONNECTOR_NAME"]);
    }

    fn message_like(sent: &Message) -> Message {
        Message {
            id: sent.id.clone(),
            ..message()
        }
    }

    #[tokio::test]
    async fn arguments_are_no_script() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a b; c");
        let argv = ["/bin/cp", "/dev/stdin", file.to_str().unwrap()].map(str::to_owned);
        run(&argv, &message(), PATIENCE).await.unwrap();
        assert!(fs::read_to_string(file).unwrap().contains("12 removals wait"));
    }

    #[tokio::test]
    async fn how_it_failed_is_told_and_what_it_said_is_not() {
        let failed = run(&shell("echo zoe@example.com >&2; exit 3"), &message(), PATIENCE)
            .await
            .unwrap_err();
        assert_eq!(failed.why, Why::Unavailable);
        assert!(
            failed.words.contains("exit status: 3") && !failed.words.contains("zoe"),
            "{}",
            failed.words
        );
        let failed = run(&["/no/such/program".to_owned()], &message(), PATIENCE)
            .await
            .unwrap_err();
        assert_eq!(failed.why, Why::Misfit);
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", pids.display());
        let argv = shell(&script);
        // Long enough for it to have begun.
        let failed = loop {
            let failed = run(&argv, &message(), Duration::from_secs(2)).await.unwrap_err();
            if pids.exists() {
                break failed;
            }
        };
        assert!(failed.words.contains("was killed"), "{}", failed.words);
        let pids = fs::read_to_string(pids).unwrap();
        for pid in pids.split_whitespace() {
            // Gone, or dead and not yet taken note of by whoever inherited it.
            let began = std::time::Instant::now();
            let alive = || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(')')
                    .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
            };
            while alive() {
                assert!(began.elapsed() < Duration::from_secs(30), "{pid} lives");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    #[tokio::test]
    async fn one_that_says_much_and_reads_nothing_is_no_harm() {
        let script = "yes 2>/dev/null | head -c 3000000";
        run(&shell(script), &message(), PATIENCE).await.unwrap();
        // Something that it started keeps its output, and is not waited for.
        let began = std::time::Instant::now();
        run(&shell("sleep 20 & exit 0"), &message(), PATIENCE).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(15));
    }
}
