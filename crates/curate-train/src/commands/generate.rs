//! `curate-train generate`: text from a run, on stdout.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use curate_shards::{TokenId, Vocabulary};
use curate_train::device::DeviceChoice;
use curate_train::generate::{Generator, Sampling};
use curate_train::rng::Rng;
use curate_train::{Error, Result};

use crate::output::Exit;
use crate::signals;

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate generate run --prompt 'The old man'      (encodes the prompt, then calls this program)
  curate generate run --max-tokens 200 --temperature 0.8 --top-k 40 --seed 7
  curate-train generate run --prompt-ids 464,1468,582

The prompt is put after an end-of-document id, as every document is in training; without a prompt the model begins \
one. Text goes to stdout as it comes. It ends at --max-tokens or where the model ends the document. The same seed \
gives the same text.";

/// Generate text with a run's model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// Run directory, as made by `curate train`
    run: PathBuf,
    /// Token ids to go on from, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    prompt_ids: Vec<TokenId>,
    /// Tokens to add at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: u64,
    /// Below 1 sharper, above 1 flatter; 0 = always the likeliest token
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    temperature: f64,
    /// Choose among the K likeliest tokens; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Texts to generate, set apart by a line `---`
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_samples: u64,
    /// Do not print the prompt before the text
    #[arg(long)]
    no_prompt: bool,
    /// Checkpoint, such as step-00000100 [default: the newest]
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Threads of the tensor operations [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

/// Runs the command.
pub(crate) fn run(args: &GenerateArgs) -> Result<Exit> {
    let interrupted = signals::listen();
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p };
    sampling.check()?;
    let checkpoint = super::open_checkpoint(&args.run, args.checkpoint.as_deref())?;
    let vocabulary = Vocabulary::open(args.run.join("vocabulary.bin"))?;
    let eod = checkpoint.state.run.tokenizer.eod;
    let model = super::load_model(&checkpoint, args.device, args.threads)?;
    for sample in 0..args.num_samples {
        if sample > 0 {
            print(b"---\n")?;
        }
        let rng = Rng::new(args.seed, &format!("sample {sample}"));
        let mut text = Generator::new(&model, eod, &args.prompt_ids, sampling, rng)?;
        if !args.no_prompt {
            let mut prompt = Vec::new();
            vocabulary.decode(&args.prompt_ids, &mut prompt);
            print(&prompt)?;
        }
        for _ in 0..args.max_tokens {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(Exit::Interrupted);
            }
            let id = text.next_token()?;
            if id == eod {
                break;
            }
            print(vocabulary.bytes(id))?;
        }
        print(b"\n")?;
    }
    Ok(Exit::Fine)
}

/// Writes to stdout at once, so that the text can be watched as it grows.
fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| Error::Io { path: "stdout".into(), error })
}
