//! `curate-train generate`: text from a run, on stdout.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use curate_shards::{TokenId, Vocabulary};
use curate_train::device::DeviceChoice;
use curate_train::generate::{Batch, Sampling, StopStrings};
use curate_train::rng::Rng;
use curate_train::{Error, Result};

use crate::output::Exit;
use crate::signals;

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate generate run --prompt 'The old man'      (encodes the prompt, then calls this program)
  curate generate run --max-tokens 200 --temperature 0.8 --top-k 40 --seed 7
  curate generate run --prompt 'One' --prompt 'Two' --num-samples 4 --batch-size 8 --stop '\\n\\n' --min-p 0.05
  curate-train generate run --prompt-ids 464,1468,582

The prompt is put after an end-of-document id, as every document is in training; without a prompt the model begins \
one. Text goes to stdout as it comes. It ends at --max-tokens or where the model ends the document. The same seed \
gives the same text. Several texts appear in the order of the prompts, the first of them as it grows; with another \
--batch-size they may differ by rounding.";

/// Generate text with a run's model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// Run directory, as made by `curate train`
    run: PathBuf,
    /// Token ids to go on from, separated by commas; several times for several prompts
    #[arg(long, value_name = "IDS", value_parser = ids)]
    prompt_ids: Vec<Ids>,
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
    /// Choose among the tokens with at least this share of the likeliest one's probability; 0 = all
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// Above 1, tokens that the text has already become less likely
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// End the text before this string; several times for several strings; \\n is a line feed
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Texts that grow side by side
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Texts to generate for each prompt, set apart by a line `---`
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

/// Token ids of one prompt.
#[derive(Clone, Debug)]
struct Ids(Vec<TokenId>);

fn ids(text: &str) -> std::result::Result<Ids, String> {
    let id = |word: &str| word.trim().parse().map_err(|_| format!("{word:?} is no token id"));
    text.split(',').filter(|word| !word.is_empty()).map(id).collect::<std::result::Result<_, _>>().map(Ids)
}

/// A text that is asked for.
struct Text<'a> {
    prompt: &'a [TokenId],
    rng: Rng,
    stops: StopStrings,
    tokens: u64,
    /// What is not printed yet.
    bytes: Vec<u8>,
    done: bool,
}

/// Runs the command.
pub(crate) fn run(args: &GenerateArgs) -> Result<Exit> {
    let interrupted = signals::listen();
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
    };
    sampling.check()?;
    let checkpoint = super::open_checkpoint(&args.run, args.checkpoint.as_deref())?;
    let vocabulary = Vocabulary::open(args.run.join("vocabulary.bin"))?;
    let eod = checkpoint.state.run.tokenizer.eod;
    let model = super::load_model(&checkpoint, args.device, args.threads)?;
    let mut texts = texts(args, &vocabulary);
    let slots = usize::from(args.batch_size).min(texts.len());
    let mut batch = Batch::new(&model, slots, sampling)?;
    let mut holds: Vec<Option<usize>> = vec![None; slots];
    let (mut waiting, mut shown) = (0..texts.len(), 0);
    loop {
        for (slot, held) in holds.iter_mut().enumerate() {
            while held.is_none_or(|text| texts[text].done) {
                batch.end(slot);
                *held = waiting.next();
                let Some(text) = *held else { break };
                batch.begin(slot, eod, texts[text].prompt, texts[text].rng.clone())?;
                texts[text].done = args.max_tokens == 0;
            }
        }
        shown = show(&mut texts, shown)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(Exit::Interrupted);
        }
        let chosen = batch.step()?;
        if chosen.is_empty() {
            return Ok(Exit::Fine);
        }
        for (slot, id) in chosen {
            let text = &mut texts[holds[slot].expect("only slots with a text are moved on")];
            text.tokens += 1;
            let stopped = id != eod && text.stops.push(vocabulary.bytes(id), &mut text.bytes);
            text.done = stopped || id == eod || text.tokens == args.max_tokens;
            if text.done && !stopped {
                text.stops.finish(&mut text.bytes);
            }
        }
    }
}

/// All texts that are asked for, prompt by prompt.
fn texts<'a>(args: &'a GenerateArgs, vocabulary: &Vocabulary) -> Vec<Text<'a>> {
    let empty: &[TokenId] = &[];
    let prompts: Vec<&[TokenId]> = match args.prompt_ids.is_empty() {
        true => vec![empty],
        false => args.prompt_ids.iter().map(|ids| ids.0.as_slice()).collect(),
    };
    let stops: Vec<String> = args.stop.iter().map(|stop| stop.replace("\\n", "\n")).collect();
    let mut texts = Vec::new();
    for (number, prompt) in prompts.into_iter().enumerate() {
        for sample in 0..args.num_samples {
            let stream = match number {
                0 => format!("sample {sample}"),
                number => format!("prompt {number} sample {sample}"),
            };
            let mut bytes = Vec::new();
            if !args.no_prompt {
                vocabulary.decode(prompt, &mut bytes);
            }
            let (rng, stops) = (Rng::new(args.seed, &stream), StopStrings::new(&stops));
            texts.push(Text { prompt, rng, stops, tokens: 0, bytes, done: false });
        }
    }
    texts
}

/// Prints what is new of the first text that is not done, and all of those before it; returns its number.
fn show(texts: &mut [Text<'_>], mut shown: usize) -> Result<usize> {
    while let Some(text) = texts.get_mut(shown) {
        print(&std::mem::take(&mut text.bytes))?;
        if !text.done {
            break;
        }
        shown += 1;
        print(if shown < texts.len() { b"\n---\n" } else { b"\n" })?;
    }
    Ok(shown)
}

/// Writes to stdout at once, so that the text can be watched as it grows.
fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| Error::Io { path: "stdout".into(), error })
}
