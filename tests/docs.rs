//! The documentation's tables against the code that they describe.
//!
//! `MODELMOUNT_WRITE_DOCS=1 cargo test --test docs` writes what is generated anew; `make generate` does that.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use modelmount_driver::args::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Puts `generated` between a page's marks, or demands that it is there.
#[track_caller]
fn current(page: &str, name: &str, generated: &str) {
    let path = root().join("docs").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- begin generated: {name} -->\n"), format!("<!-- end generated: {name} -->"));
    let from = text.find(&begin).unwrap_or_else(|| panic!("{page} has no {begin}")) + begin.len();
    let to = from + text[from..].find(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    if std::env::var_os("MODELMOUNT_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{}{generated}{}", &text[..from], &text[to..])).unwrap();
    } else {
        assert!(text[from..to] == *generated, "docs/{page} is not current: run `make generate`");
    }
}

/// A cell of a table: one line, and no bar that would end it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn flag_row(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default().join(" ");
    let name = match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("`--{long} {values}`"),
        Some(long) => format!("`--{long}`"),
        None => format!("`{values}`"),
    };
    let environment = arg.get_env().map(|name| format!("`{}`", name.to_str().unwrap())).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    let default = match (arg.is_required_set(), defaults.is_empty() || !arg.get_action().takes_values()) {
        (true, _) => "required".to_owned(),
        (false, true) => String::new(),
        (false, false) => format!("`{}`", defaults.join(",")),
    };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let choices: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if arg.get_action().takes_values() && !choices.is_empty() {
        help.push_str(&format!(": {}", choices.join(", ")));
    }
    format!("| {name} | {environment} | {default} | {} |\n", cell(&help))
}

fn command_table(command: &Command, name: &str) -> String {
    let mut text = format!("### `{name}`\n\n");
    text.push_str(&format!("{}.\n\n", command.get_about().map(ToString::to_string).unwrap_or_default()));
    let own: Vec<_> = command.get_arguments().filter(|arg| !arg.is_global_set() && is_ours(arg)).collect();
    if !own.is_empty() {
        text.push_str("| flag | environment | default | meaning |\n| --- | --- | --- | --- |\n");
        own.into_iter().for_each(|arg| text.push_str(&flag_row(arg)));
        text.push('\n');
    }
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        text.push_str(&command_table(sub, &format!("{name} {}", sub.get_name())));
    }
    text
}

/// Not one that clap adds to every command.
fn is_ours(arg: &&Arg) -> bool {
    !["help", "version"].contains(&arg.get_id().as_str())
}

#[test]
fn every_flag_and_variable_is_in_the_configuration_page() {
    let mut cli = Cli::command();
    cli.build();
    let mut text =
        String::from("### Every command\n\n| flag | environment | default | meaning |\n| --- | --- | --- | --- |\n");
    cli.get_arguments().filter(|arg| arg.is_global_set() && is_ours(arg)).for_each(|arg| text.push_str(&flag_row(arg)));
    text.push('\n');
    for sub in cli.get_subcommands().filter(|sub| sub.get_name() != "help") {
        text.push_str(&command_table(sub, &format!("modelmount {}", sub.get_name())));
    }
    current("configuration.md", "flags", &format!("\n{}\n", text.trim_end()));
}

/// All Rust text of the two crates, with the line breaks that rustfmt puts into long literals taken out.
fn sources() -> String {
    let mut text = String::new();
    let mut pending = vec![root().join("src"), root().join("driver/src")];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                text.push_str(&fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut joined = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("\\\n") {
        joined.push_str(&rest[..at]);
        rest = rest[at + 2..].trim_start();
    }
    joined + rest
}

/// The messages in the first column of the page's tables: `like this`, with … for what differs.
fn documented_messages(page: &str) -> Vec<String> {
    let messages: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(message, _)| message.replace("\\|", "|"))
        .collect();
    assert!(messages.len() > 40, "the page has tables of messages");
    messages
}

#[test]
fn every_message_in_the_troubleshooting_page_is_one_that_the_code_has() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    // The code writes quotes with a backslash.
    let sources = sources().replace("\\\"", "\"");
    let unknown: Vec<_> = documented_messages(&page)
        .into_iter()
        .filter(|message| {
            let mut parts = message.split('…').map(str::trim).filter(|part| part.len() > 3).peekable();
            parts.peek().is_none() || !parts.all(|part| sources.contains(part))
        })
        .collect();
    assert!(unknown.is_empty(), "docs/troubleshooting.md has messages that no source has: {unknown:#?}");
}
