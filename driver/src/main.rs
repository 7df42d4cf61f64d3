//! The `modelmount` command: parses the command line, sets up logs, and says clearly why it ends.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use modelmount_driver::args::Cli;
use modelmount_driver::command;

/// `EX_USAGE` of sysexits.h: the command line is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let initializer = is_initializer(&arguments);
    if initializer {
        arguments.insert(1, "pull".into());
    }
    let code = match Cli::try_parse_from(&arguments) {
        Ok(cli) => command::run(cli),
        Err(error) => refuse(&error, arguments),
    };
    // That container knows one code for all that fails.
    if initializer && code != ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
}

/// Whether this is in the place of KServe's storage-initializer: its container is started with nothing but URIs and
/// directories.
fn is_initializer(arguments: &[OsString]) -> bool {
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    first.is_some_and(|first| first.contains("://") || first.starts_with('/'))
}

/// Says what is wrong with the command line. That nobody reads it is no failure of its own.
fn refuse(error: &clap::Error, arguments: Vec<OsString>) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => drop(error.print()),
        _ => {
            let (problem, command) = (one_line(error), subcommand(arguments.into_iter()));
            let _ = writeln!(std::io::stderr(), "modelmount: {problem}; see `{command} --help`");
        }
    }
    ExitCode::from(USAGE)
}

/// An error in one line, as a pod's log or its termination message has room for: without the usage, and without clap's
/// own hint at the help, which does not name the subcommand.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.take_while(|line| !line.starts_with("Usage: ") && !line.starts_with("For more information"));
    let joined = said.collect::<Vec<_>>().join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

/// The command whose help to read: as many subcommands as the arguments name.
fn subcommand(arguments: impl Iterator<Item = OsString>) -> String {
    let mut command = Cli::command();
    let mut path = command.get_name().to_owned();
    for argument in arguments.skip(1) {
        if let Some(found) = command.find_subcommand(argument) {
            path = format!("{path} {}", found.get_name());
            command = found.clone();
        }
    }
    path
}
