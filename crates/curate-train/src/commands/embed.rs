//! `curate-train embed`: a vector for each document whose token ids come on stdin.

use std::io::{BufReader, IsTerminal};
use std::path::PathBuf;
use std::thread;

use curate_train::device::DeviceChoice;
use curate_train::embed::{IdReader, embed};
use curate_train::model::Model;
use curate_train::npy::NpyWriter;
use curate_train::{Error, Result};
use tch::Device;

use crate::output::{self, Exit, thousands};
use crate::signals;

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Called by `curate embed`, which reads documents and encodes them with the run's tokenizer.

Each document is cut into windows of the model's context; the vector is the mean of the final hidden state over all of its \
tokens. The output is a NumPy array of single precision, [documents, channels].";

/// Embed documents with a run's model (`curate embed` calls this)
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EmbedArgs {
    /// Run directory, as made by `curate train`
    run: PathBuf,
    /// Write the array to this file (.npy)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Windows that run together
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Checkpoint, such as step-00000100 [default: the newest]
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Threads, each with batches of its own; the array does not depend on it [default: all cores; on a GPU one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Print only warnings and errors
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(args: &EmbedArgs) -> Result<Exit> {
    let interrupted = signals::listen();
    if std::io::stdin().is_terminal() {
        return Err(Error::Ids { problem: "standard input is a terminal".into() });
    }
    let checkpoint = super::open_checkpoint(&args.run, args.checkpoint.as_deref())?;
    let eod = checkpoint.state.run.tokenizer.eod;
    let model = super::load_model(&checkpoint, args.device, None)?;
    let threads = match model.device() {
        Device::Cpu => args.threads.map_or_else(
            || thread::available_parallelism().map_or(1, usize::from),
            |threads| threads as usize,
        ),
        _ => 1,
    };
    let mut models: Vec<Model> = (1..threads).map(|_| model.share()).collect::<Result<_>>()?;
    models.push(model);
    let documents = IdReader::new(BufReader::with_capacity(256 << 10, std::io::stdin().lock()))?;
    let channels = models[0].config().channels;
    let mut file = NpyWriter::create(&args.output, channels as usize)?;
    let done = embed(&mut models, eod, args.batch as usize, documents, |row| file.push(row), interrupted)?;
    file.finish()?;
    if !args.quiet {
        output::line(&format!(
            "{} documents, {} tokens: {} rows of {} numbers in {}{}",
            thousands(done.documents),
            thousands(done.tokens),
            thousands(done.documents),
            channels,
            args.output.display(),
            match done.empty {
                0 => String::new(),
                n => format!(", {} of them zeros for want of tokens", thousands(n)),
            }
        ));
    }
    Ok(Exit::Fine)
}
