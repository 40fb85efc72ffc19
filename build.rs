//! Tells the program which commit and which target it was built from, for `--version`.
//!
//! The commit is, in this order: `TORQ_CONNECTOR_COMMIT` where a packager sets it; what `cargo package` noted; what git says, in
//! a release build. A debug build does not ask git, or every commit would build everything anew. Nothing here depends on the
//! time or the place, so that the same source makes the same program.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TORQ_CONNECTOR_COMMIT");
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_TARGET={target}");
    let commit = told().or_else(packaged).or_else(from_git);
    println!(
        "cargo::rustc-env=BUILD_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
}

fn told() -> Option<String> {
    let commit = std::env::var("TORQ_CONNECTOR_COMMIT").ok()?;
    let fits = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(commit)
}

/// The crate as `cargo package` makes it has no repository, but says of which commit it is.
fn packaged() -> Option<String> {
    let noted = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = noted.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    Some(shortened(commit))
}

fn from_git() -> Option<String> {
    if std::env::var("PROFILE").as_deref() != Ok("release") || !Path::new(".git").exists() {
        return None;
    }
    // Whatever moves HEAD writes one of these; where they are is different in a worktree.
    for file in ["HEAD", "logs/HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let commit = shortened(&git(&["rev-parse", "HEAD"])?);
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}-changed")
    })
}

fn shortened(commit: &str) -> String {
    commit.chars().take(12).collect()
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
