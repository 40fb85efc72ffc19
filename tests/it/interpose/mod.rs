//! What stands between the unmodified binary and the C library: tests decide at which write the process dies, which writes the
//! disk refuses, and what time it is. The shim is C (`interpose.c`), compiled here; the compiler is there, since SQLite is
//! compiled from C, too. It needs Linux with glibc.
//!
//! Whoever lets a command pass through it and does not get it loaded hears of it when the [`Interpose`] is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOURCE: &str = include_str!("interpose.c");
/// Bytes of the control file; more than `struct control` has.
const SIZE: u64 = 4096;

/// The words of `struct control`, in its order.
#[derive(Clone, Copy)]
enum Word {
    Loaded,
    Steps,
    Counts,
    KillAt,
    KillHow,
    Killed,
    FailFrom,
    FailUntil,
    FailWhat,
    FailWith,
    Failed,
    Wall,
    Monotonic,
    Looked,
    Lost,
    Seed,
    Only,
}

/// Kinds of calls, as a mask.
pub mod kind {
    pub const WRITE: u64 = 1;
    pub const SYNC: u64 = 2;
    pub const CREATE: u64 = 4;
    pub const TRUNCATE: u64 = 8;
    pub const NAME: u64 = 16;
    pub const SEND: u64 = 32;
    pub const READ: u64 = 64;
    /// Everything that changes a file.
    pub const DISK: u64 = WRITE | SYNC | CREATE | TRUNCATE | NAME;
}

/// How the process dies at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Killed before it.
    Before,
    /// Killed after it.
    After,
    /// Killed when half of its bytes were written.
    Torn,
    /// The machine loses power before it: whatever was written and not synced is gone; with a seed, some of it.
    Power(u64),
}

/// What a disk says that does not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `ENOSPC`.
    Full,
    /// A short write, which is how many a disk says that it is full.
    Short,
    /// `EROFS`.
    ReadOnly,
    /// `EIO`.
    Broken,
    /// `EIO`, also for what is read.
    Unreadable,
}

impl Refusal {
    fn what(self) -> u64 {
        match self {
            Self::Full | Self::ReadOnly => kind::WRITE | kind::CREATE | kind::TRUNCATE | kind::NAME,
            Self::Short => kind::WRITE,
            Self::Broken => kind::DISK,
            Self::Unreadable => kind::DISK | kind::READ,
        }
    }

    fn errno(self) -> u64 {
        match self {
            Self::Full => 28,
            Self::Short => 0,
            Self::ReadOnly => 30,
            Self::Broken | Self::Unreadable => 5,
        }
    }
}

/// The control of the shim, for commands about one folder.
pub struct Interpose {
    control: File,
    /// Removed when dropped.
    path: tempfile::TempPath,
    dir: PathBuf,
    used: AtomicBool,
}

impl Interpose {
    /// For files below `dir`, which need not be there yet.
    pub fn new(dir: &Path) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let path = file.into_temp_path();
        let control = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let interpose = Self {
            control,
            path,
            dir: dir.to_owned(),
            used: AtomicBool::new(false),
        };
        interpose.set(Word::Counts, kind::DISK);
        interpose
    }

    /// The variables that let a command pass through the shim.
    pub fn env(&self) -> [(&'static str, PathBuf); 3] {
        self.used.store(true, Ordering::Relaxed);
        [
            ("LD_PRELOAD", library()),
            ("INTERPOSE_CONTROL", self.path.to_path_buf()),
            ("INTERPOSE_DIR", self.dir.clone()),
        ]
    }

    /// Which kinds of calls are steps: those that change files, unless said otherwise.
    pub fn count(&self, kinds: u64) {
        self.set(Word::Counts, kinds);
    }

    /// Only files with this in their path matter.
    pub fn only(&self, part: &str) {
        let mut bytes = part.as_bytes().to_vec();
        bytes.push(0);
        assert!(bytes.len() <= 256);
        self.control.write_all_at(&bytes, Word::Only as u64 * 8).unwrap();
    }

    /// Begins to count from the first step again, and forgets what was ordered for the disk.
    pub fn begin(&self) {
        for word in [Word::Steps, Word::KillAt, Word::FailFrom, Word::FailUntil] {
            self.set(word, 0);
        }
    }

    /// The process dies at this step, counted from [`Self::begin`].
    pub fn kill_at(&self, step: u64, how: Death) {
        let (how, seed) = match how {
            Death::Before => (0, 0),
            Death::After => (1, 0),
            Death::Torn => (2, 0),
            Death::Power(seed) => (3, seed),
        };
        self.set(Word::KillHow, how);
        self.set(Word::Seed, seed);
        self.set(Word::KillAt, step);
    }

    /// The disk refuses from this step on.
    pub fn refuse_from(&self, step: u64, refusal: Refusal) {
        self.set(Word::FailWhat, refusal.what());
        self.set(Word::FailWith, refusal.errno());
        self.set(Word::FailUntil, 0);
        self.set(Word::FailFrom, step);
    }

    /// The disk refuses this step and no other.
    pub fn refuse_once(&self, step: u64, refusal: Refusal) {
        self.refuse_from(step, refusal);
        self.set(Word::FailUntil, step);
    }

    /// The disk works again.
    pub fn relent(&self) {
        self.set(Word::FailFrom, 0);
    }

    /// The wall clock is ahead by so many seconds.
    pub fn set_wall(&self, seconds: i64) {
        self.set(Word::Wall, (seconds * 1_000_000_000) as u64);
    }

    /// So much time passes, by every clock.
    pub fn pass(&self, time: Duration) {
        for word in [Word::Wall, Word::Monotonic] {
            self.set(word, self.get(word).wrapping_add(time.as_nanos() as u64));
        }
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.get(Word::Steps)
    }

    /// Processes that were killed so far.
    pub fn deaths(&self) -> u64 {
        self.get(Word::Killed)
    }

    /// Calls that were refused so far.
    pub fn refusals(&self) -> u64 {
        self.get(Word::Failed)
    }

    /// Looks at the wall clock so far.
    pub fn looks_at_clock(&self) -> u64 {
        self.get(Word::Looked)
    }

    /// Writes that losses of power undid so far.
    pub fn lost_writes(&self) -> u64 {
        self.get(Word::Lost)
    }

    fn get(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word as u64 * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, word: Word, value: u64) {
        self.control
            .write_all_at(&value.to_ne_bytes(), word as u64 * 8)
            .unwrap();
    }
}

impl Drop for Interpose {
    fn drop(&mut self) {
        if self.used.load(Ordering::Relaxed) && !std::thread::panicking() {
            assert!(self.get(Word::Loaded) > 0, "the shim was loaded into no process");
        }
    }
}

/// The compiled shim, beside the test binary. Tests are processes of their own, so whoever comes first compiles it.
fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    let hash = xxhash_rust::xxh3::xxh3_64(SOURCE.as_bytes());
    let library = beside.with_file_name(format!("interpose-{hash:016x}.so"));
    if library.exists() {
        return library;
    }
    let scratch = tempfile::tempdir_in(library.parent().unwrap()).unwrap();
    let (source, made) = (scratch.path().join("interpose.c"), scratch.path().join("interpose.so"));
    fs::write(&source, SOURCE).unwrap();
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&made, &source])
        .args(["-ldl", "-lpthread"])
        .output()
        .expect("a C compiler, cc");
    assert!(
        output.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&made, &library).unwrap();
    library
}
