//! A pseudo-terminal with a person at it: types when it reads what it waits for, and sees what a person would see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};

use crate::binary::eventually;

/// Written behind everything that a command showed.
const END: &str = "(the end of what was shown)";

/// A command on a terminal of its own.
pub struct Terminal {
    child: Child,
    keyboard: File,
    line: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a command in a window of this size; it ends when this is dropped.
    pub fn start(mut command: Command, (columns, rows): (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let line = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&line, size).unwrap();
        let end = || OwnedFd::from(line.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let keyboard = File::from(master);
        let mut glass = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error when nobody has the other end any more.
            while let Ok(read @ 1..) = glass.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self {
            child,
            keyboard,
            line,
            screen,
        }
    }

    /// All that was shown so far.
    pub fn shown(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits until this was shown so often.
    pub async fn reads_times(&self, words: &str, times: usize) {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            eventually(words, async || {
                (self.shown().matches(words).count() >= times).then_some(())
            })
            .await;
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("waiting for {words:?}:\n{}", self.shown()));
    }

    pub async fn reads(&self, words: &str) {
        self.reads_times(words, 1).await;
    }

    /// Types a line when this is asked.
    pub async fn answers(&mut self, question: &str, answer: &str) {
        self.reads(question).await;
        self.types(&format!("{answer}\n"));
    }

    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        tcgetattr(self.line.as_fd())
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    }

    /// What the kernel knows of the command.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits for the end. Returns the exit code and all that was shown.
    pub async fn ends(mut self) -> (i32, String) {
        let status = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", self.shown()));
        let code = status.unwrap().code().unwrap_or(-1);
        // A terminal keeps the order: when this is read, so is everything that was shown before.
        self.line.write_all(END.as_bytes()).unwrap();
        self.reads(END).await;
        let shown = self.shown().replace(END, "");
        (code, shown)
    }
}
