//! The command line.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "tally99", version)]
enum Cli {
    Generate(tally99::generate::GenerateArgs),
}

fn main() -> ExitCode {
    let Cli::Generate(args) = Cli::parse();
    let stop = tally99::stop::on_signal().expect("signals can be caught");
    match tally99::generate::run(&args, &BTreeMap::new(), stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
