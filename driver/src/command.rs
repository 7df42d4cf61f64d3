//! What each subcommand does, and how it ends.

use std::io::Write;
use std::process::ExitCode;

use modelmount::Error;
use tonic::Status;
use tracing_subscriber::EnvFilter;

use crate::args::{CacheCommand, Cli, Command, Log, LogFormat};

mod cache;
mod digest;
mod environment;
mod mount;
mod pull;
mod resolve;
mod serve;
mod terminal;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, beyond what parsing it could tell. Code 64, `EX_USAGE` of sysexits.h.
    #[error("{0}")]
    Usage(String),
    /// The plugin can't work as it is configured, or on this machine. Code 78, `EX_CONFIG`.
    #[error("{0}")]
    Configuration(String),
    /// What was to be done failed. Code 1, as KServe's storage-initializer.
    #[error("{0}")]
    Failed(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error.report())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Failed(format!("{} ({:?})", status.message(), status.code()))
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Configuration(_) => 78,
            Self::Failed(_) => 1,
        }
    }
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    let result = log(&cli.log).and_then(|()| match cli.command {
        Command::Node(args) => serve::node(args),
        Command::Controller(args) => serve::controller(args),
        Command::Pull(args) => pull::run(&args),
        Command::Resolve(args) => resolve::run(&args),
        Command::Digest(args) => digest::run(&args),
        Command::Mount(args) => mount::mount(&args),
        Command::Unmount(args) => mount::unmount(&args),
        Command::Cache(CacheCommand::Ls(args)) => cache::ls(&args),
        Command::Cache(CacheCommand::Rm(args)) => cache::rm(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "modelmount: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn log(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.log_level)
        .map_err(|error| Failure::Usage(format!("--log-level {:?}: {error}", log.log_level)))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_target(false).with_ansi(terminal::is_terminal()).init(),
    }
    Ok(())
}

/// A runtime for a command that does one thing.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Configuration(format!("can't start threads: {error}")))
}

/// Writes an answer to standard output. A reader that went away (`| head`) is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
