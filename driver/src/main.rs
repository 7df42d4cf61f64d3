//! The `modelmount` command.

fn main() {}
