//! The `tally99` command.

fn main() {}
