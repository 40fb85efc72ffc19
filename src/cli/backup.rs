//! `backup`: a copy of each connector's state, made beside whoever works with it. Not through the daemon: reading needs no lock,
//! and the daemon may write nowhere but into its own folder.

use jiff::Timestamp;

use super::reach::{Sight, may_look};
use super::sync::removed_words;
use super::{BackupArgs, CommandError, Context, Exit, tell, write_out};
use crate::state::{self, StateError};
use crate::wording;

pub(super) async fn run(context: Context, args: BackupArgs) -> Result<Exit, CommandError> {
    let Sight {
        config, names, exit, ..
    } = Sight::at_and_tell(&context, &args.names)?;
    if state::is_state_dir(&config.state_dir, &args.to) {
        let message = format!(
            "{} is the folder of the states themselves; give another one",
            args.to.display()
        );
        return Err(CommandError::new(Exit::Usage, message));
    }
    may_look(&config.state_dir)?;
    let now = Timestamp::now();
    let mut exit = exit;
    for name in names {
        let (state_dir, to) = (config.state_dir.clone(), args.to.clone());
        let (connector, dir) = (name.clone(), to.clone());
        let copied = tokio::task::spawn_blocking(move || state::backup(&state_dir, &connector, &dir, now)).await;
        match copied.map_err(CommandError::unexpected)? {
            Ok(Some(copied)) => {
                let (users, bytes) = (wording::counted(copied.users, "user"), copied.bytes);
                write_out(|out| {
                    let (path, schema) = (copied.path.display(), copied.schema);
                    writeln!(out, "{name}: {path} ({users}, {bytes} bytes, schema {schema}, checked)")
                })?;
            }
            Ok(None) => {
                let words = match state::removed(&config.state_dir, &name) {
                    Some(_) => removed_words(&name),
                    None => "nothing is known yet, so there is nothing to copy".to_owned(),
                };
                tell(&format!("{name}: {words}"));
                if !args.names.is_empty() {
                    exit = exit.or(Exit::Partial);
                }
            }
            // What is wrong with one state keeps none of the others from being copied.
            Err(error) => {
                let words = match &error {
                    // Advice about the folder of the states would lead astray.
                    StateError::File { doing, path, source } if path.starts_with(&to) => {
                        format!(
                            "cannot {doing} {}: {source}; give another folder with --to",
                            path.display()
                        )
                    }
                    other => other.to_string(),
                };
                tell(&format!("{name}: not copied: {words}"));
                exit = exit.or(Exit::Unexpected);
            }
        }
    }
    Ok(exit)
}
