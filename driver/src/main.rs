//! The `modelmount` command: parses the command line, sets up logs, and says clearly why it ends.

use std::process::ExitCode;

use clap::Parser;
use modelmount_driver::args::Cli;
use modelmount_driver::command;

/// `EX_USAGE` of sysexits.h: the command line is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no failure. That nobody reads them is none either.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    command::run(cli)
}
