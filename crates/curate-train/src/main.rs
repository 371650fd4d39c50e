//! `curate-train`: train, evaluate and sample small language models on token shards.
//!
//! `curate train`, `curate eval` and `curate generate` replace themselves with this program, and `curate embed` sends it token
//! ids, so that only it pays for loading libtorch.

mod commands;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;

/// Train, evaluate and sample causal language models on token shards
#[derive(Parser)]
#[command(
    name = "curate-train",
    bin_name = "curate",
    version,
    arg_required_else_help = true,
    max_term_width = 110
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Train(Box<commands::train::TrainArgs>),
    Eval(commands::eval::EvalArgs),
    Generate(commands::generate::GenerateArgs),
    Embed(commands::embed::EmbedArgs),
    Export(commands::export::ExportArgs),
    Import(commands::import::ImportArgs),
    Scaling(commands::scaling::ScalingArgs),
}

fn main() -> ExitCode {
    curate_train::memory::keep();
    let args = match commands::settings_file::expand(std::env::args_os().collect()) {
        Ok(args) => args,
        Err(error) => return output::report(&error).into(),
    };
    let cli = Cli::parse_from(args);
    let outcome = match cli.command {
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Embed(args) => commands::embed::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Scaling(args) => commands::scaling::run(&args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => output::report(&error).into(),
    }
}
