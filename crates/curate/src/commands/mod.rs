//! The commands, one file each.

pub(crate) mod read;
pub(crate) mod clean;
pub(crate) mod score;
pub(crate) mod train_classifier;
pub(crate) mod dedup;
pub(crate) mod decontaminate;
pub(crate) mod train_tokenizer;
pub(crate) mod tokenize;
pub(crate) mod pack;
pub(crate) mod shards;
pub(crate) mod run;
pub(crate) mod trainer;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod embed;
pub(crate) mod stats;
pub(crate) mod inspect;
pub(crate) mod verify;
pub(crate) mod completions;

use crate::cli::{Cli, Command};
use crate::failure::{Exit, Result};

pub(crate) fn execute(cli: Cli) -> Result<Exit> {
    match cli.command {
        Command::Read(command) => read::execute(&command),
        Command::Clean(command) => clean::execute(&command),
        Command::Score(command) => score::execute(&command),
        Command::TrainClassifier(command) => train_classifier::execute(&command),
        Command::Dedup(command) => dedup::execute(&command),
        Command::Decontaminate(command) => decontaminate::execute(&command),
        Command::TrainTokenizer(command) => train_tokenizer::execute(&command),
        Command::Tokenize(command) => tokenize::execute(&command),
        Command::Pack(command) => pack::execute(&command),
        Command::Shards(command) => shards::execute(&command),
        Command::Run(command) => run::execute(&command),
        Command::Train(command) => trainer::train(&command),
        Command::Eval(command) => trainer::eval(&command),
        Command::Generate(command) => generate::execute(&command),
        Command::Export(command) => trainer::export(&command),
        Command::Import(command) => import::execute(&command),
        Command::Scaling(command) => trainer::scaling(&command),
        Command::Embed(command) => embed::execute(&command),
        Command::Stats(command) => stats::execute(&command),
        Command::Inspect(command) => inspect::execute(&command),
        Command::Verify(command) => verify::execute(&command),
        Command::Completions(command) => completions::execute(&command),
        Command::Man(command) => completions::man(&command),
    }
}
