//! Questions on a terminal. A secret is not shown while it is typed, and the terminal is as before afterwards, also after Ctrl-C: the
//! keys are read one by one then, and Ctrl-C is one of them.

use std::io::{self, Write};

use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;

use super::{Given, Next};
use crate::cli::{CommandError, Exit};
use crate::invocation::addressed;

/// Longer than any secret; what is longer was not meant to be one.
const MAX_SECRET: usize = 8 * 1024;

fn prompt(text: &str) {
    let mut terminal = io::stderr();
    let _ = write!(terminal, "{}", addressed(text)).and_then(|()| terminal.flush());
}

fn left_early() -> CommandError {
    CommandError::new(Exit::Usage, "\nNothing is saved.")
}

/// Reads one byte of standard input, past no buffer: what comes after a line is the next question's. `None` at its end.
fn read_byte() -> Result<Option<u8>, CommandError> {
    let mut byte = [0];
    loop {
        match rustix::io::read(io::stdin(), &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(Errno::INTR) => {}
            Err(error) => return Err(CommandError::unexpected(io::Error::from(error))),
        }
    }
}

/// Reads a line of standard input; `None` at its end.
pub(super) fn read_line() -> Result<Option<String>, CommandError> {
    let mut line = Vec::new();
    loop {
        match read_byte()? {
            None if line.is_empty() => return Ok(None),
            None | Some(b'\n') => break,
            Some(byte) if line.len() < MAX_SECRET => line.push(byte),
            Some(_) => return Err(CommandError::new(Exit::Usage, "that is too long for a line")),
        }
    }
    let line = String::from_utf8(line).map_err(|_| CommandError::new(Exit::Usage, "that is not UTF-8 text"))?;
    Ok(Some(line.trim_end_matches('\r').to_owned()))
}

/// Asks until the answer is one. An empty one is the usual one.
pub(super) fn ask<T>(question: &str, usual: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, CommandError> {
    let usually = if usual.is_empty() {
        String::new()
    } else {
        format!(" [{usual}]")
    };
    loop {
        prompt(&format!("{question}{usually}: "));
        let line = read_line()?.ok_or_else(left_early)?;
        let text = if line.trim().is_empty() { usual } else { &line };
        match read(text) {
            Ok(answer) => return Ok(answer),
            Err(problem) => prompt(&format!("  {problem}\n")),
        }
    }
}

/// Asks what becomes of answers that did not pass the test.
pub(super) fn ask_what_next() -> Result<Next, CommandError> {
    let question =
        "a: correct what failed, and test again; y: save it all the same; n: leave, and save nothing [a/y/N]";
    ask(question, "", |text| match text.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(Next::Save),
        "a" | "again" => Ok(Next::Again),
        "" | "n" | "no" => Ok(Next::Leave),
        _ => Err("give a, y or n".to_owned()),
    })
}

/// Asks for what nobody must see. An empty answer keeps what there is, if there is anything.
pub(super) fn ask_secret(question: &str, before: Option<Given>) -> Result<Given, CommandError> {
    let hint = if before.is_some() {
        "not shown; empty: as before"
    } else {
        "not shown"
    };
    loop {
        let typed = {
            // First of all: whoever types fast, or pastes, must not see it, either.
            let _quiet = Quiet::begin()?;
            prompt(&format!("{question} ({hint}): "));
            read_keys()
        };
        prompt("\n");
        match typed? {
            Typed::Line(secret) if secret.is_empty() => match before {
                Some(before) => return Ok(before),
                None => prompt("  this cannot be empty\n"),
            },
            Typed::Line(secret) => return Ok(Given::Told(SecretString::from(secret))),
            Typed::Left => return Err(left_early()),
        }
    }
}

enum Typed {
    Line(String),
    /// Ctrl-C, Ctrl-D, or nobody is there any more.
    Left,
}

/// Reads a line key by key.
fn read_keys() -> Result<Typed, CommandError> {
    let mut line = Vec::new();
    loop {
        match read_byte()? {
            Some(b'\n' | b'\r') => break,
            None | Some(0x03 | 0x04 | 0x1c) => return Ok(Typed::Left),
            // Backspace takes a character, Ctrl-U all of them.
            Some(0x08 | 0x7f) => while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            Some(0x15) => line.clear(),
            Some(byte) if line.len() < MAX_SECRET => line.push(byte),
            Some(_) => return Err(CommandError::new(Exit::Usage, "that is too long for a secret")),
        }
    }
    let line = String::from_utf8(line).map_err(|_| CommandError::new(Exit::Usage, "that is not UTF-8 text"))?;
    Ok(Typed::Line(line.trim().to_owned()))
}

/// While this lives, the terminal shows nothing of what is typed and makes no signals of it.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn begin() -> Result<Self, CommandError> {
        let failed = |error: Errno| CommandError::unexpected(io::Error::from(error));
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Drain, &quiet).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
