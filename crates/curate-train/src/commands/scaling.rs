//! `curate-train scaling`: fits scaling laws to runs, and plans runs by them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use curate_train::scaling::{self, Fit, Form, Law, Published};
use curate_train::{Error, Result, checkpoint};

use crate::output::{self, Exit};

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate scaling fit runs/* --json fit.json
  curate scaling plan --flops 1e21
  curate scaling plan --flops 1e21 --constants fit.json

Runs are directories of `curate train` (or their log.jsonl), of which the last evaluation counts, or JSON Lines with params, \
tokens and loss. Plans assume 6 N D FLOPs.

Published constants are those of their authors' corpora and tokenizers; yours are others. Fit your own small runs before \
you spend much by them.";

/// Fit scaling laws to runs, and plan runs by them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScalingArgs {
    #[command(subcommand)]
    command: ScalingCommand,
}

#[derive(Subcommand)]
enum ScalingCommand {
    /// Fit a law: Huber loss of ln L, L-BFGS from a grid, bootstrap intervals
    Fit(FitArgs),
    /// Split a budget of FLOPs between parameters and tokens
    Plan(PlanArgs),
}

#[derive(Args)]
struct FitArgs {
    /// Run directories, or files of JSON Lines with params, tokens and loss
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Form of the law
    #[arg(long, value_enum, default_value_t = FormName::Chinchilla)]
    form: FormName,
    /// Fits to runs drawn with replacement, for the 95 % intervals
    #[arg(long, value_name = "N", default_value_t = 200)]
    resamples: u32,
    /// Also write the fit as JSON to this file, for `plan --constants`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct PlanArgs {
    /// The budget, such as 1e21
    #[arg(long, value_name = "F")]
    flops: f64,
    /// besiroglu, hoffmann, hoffmann-tex, kaplan, or a file of `fit --json` [default: all that are published]
    #[arg(long, value_name = "NAME")]
    constants: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormName {
    /// E + A / N^alpha + B / D^beta
    Chinchilla,
    /// ((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D
    Kaplan,
}

/// Runs the command.
pub(crate) fn run(args: &ScalingArgs) -> Result<Exit> {
    match &args.command {
        ScalingCommand::Fit(args) => fit(args),
        ScalingCommand::Plan(args) => plan(args),
    }
}

fn fit(args: &FitArgs) -> Result<Exit> {
    let points = scaling::read_points(&args.runs)?;
    let form = match args.form {
        FormName::Chinchilla => Form::Chinchilla,
        FormName::Kaplan => Form::Kaplan,
    };
    let fit = scaling::fit(form, &points, args.resamples)?;
    output::line(&format!("{} runs, root mean square error of ln L {:.5}", fit.runs, fit.rms));
    for (i, (name, value)) in fit.law.constants().into_iter().enumerate() {
        let interval = fit.intervals.get(i).map(|(_, [a, b])| format!("   {} to {}", short(*a), short(*b)));
        output::line(&format!("{name:8} {:>10}{}", short(value), interval.unwrap_or_default()));
    }
    if let Some(path) = &args.json {
        let json = |source| Error::Json { path: path.clone(), what: "fit", source };
        let text = serde_json::to_string_pretty(&fit).map_err(json)? + "\n";
        checkpoint::write_file(path, text.as_bytes())?;
    }
    Ok(Exit::Fine)
}

fn plan(args: &PlanArgs) -> Result<Exit> {
    if !(args.flops >= 1e6 && args.flops.is_finite()) {
        return Err(Error::Option {
            flag: "--flops",
            problem: format!("must be at least 1e6, is {}", args.flops),
        });
    }
    output::line("constants     parameters      tokens  tokens/parameter  loss in nats");
    let row = |name: &str, law: &Law, source: &str| {
        let plan = law.plan(args.flops);
        let (n, d) = (short(plan.params), short(plan.tokens));
        let (ratio, loss) = (plan.tokens_per_param, plan.loss);
        output::line(&format!("{name:12}  {n:>10}  {d:>10}  {ratio:16.1}  {loss:12.4}   {source}"));
    };
    let published = scaling::published();
    let named = |name: &str| published.iter().find(|law| law.name == name);
    match &args.constants {
        None => published.iter().for_each(|Published { name, source, law }| row(name, law, source)),
        Some(name) => match named(name) {
            Some(Published { name, source, law }) => row(name, law, source),
            None => {
                let path = PathBuf::from(name);
                let text = std::fs::read(&path).map_err(|error| Error::Io { path: path.clone(), error })?;
                let json = |source| Error::Json { path, what: "fit", source };
                let fit: Fit = serde_json::from_slice(&text).map_err(json)?;
                row("fit", &fit.law, &format!("{} runs in {name}", fit.runs));
            }
        },
    }
    Ok(Exit::Fine)
}

/// A number as a person writes it: few digits, an exponent where there are many.
fn short(x: f64) -> String {
    if (1e-3..1e5).contains(&x.abs()) { format!("{x:.4}") } else { format!("{x:.3e}") }
}
