//! `curate run`: the stages of a pipeline file, fused in one process.
//!
//! A stage of the file has the options of the command of its name, and is parsed by that command's own definition:
//! what the file can say is exactly what the shell can say.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use curate_core::Report;
use curate_io::{DropLog, Inputs, Output, SpoolReader, SpoolWriter};
use serde_json::json;

use crate::chain::{Chain, Ending, Kind, Link, Pass, document_sink, find_inputs, summary_parameters};
use crate::cli::{OutputOptions, StreamOptions, byte_size};
use crate::commands::clean::CleanOptions;
use crate::commands::decontaminate::{self, DecontaminateStage};
use crate::commands::dedup::two_pass::{self, Asked, Settled, Settling};
use crate::commands::dedup::{self, DedupStage};
use crate::commands::pack::PackOptions;
use crate::commands::read::ReadOptions;
use crate::commands::score::ScoreOptions;
use crate::commands::tokenize::{TokenEnd, TokenizeOptions};
use crate::failure::{Exit, Failure, Result};
use crate::pipeline::PipelineFile;
use crate::resume::{RunDirectory, Unit, output_key, plan_units};
use crate::summary::{Extra, Summary};
use crate::ui;
use crate::usage::usage;

/// Run the stages of a pipeline file in one process
///
/// The result is byte for byte that of the same stages in a shell pipe, without encoding and parsing the documents
/// between them. The whole file is checked before anything starts.
///
/// With `run-dir`, a run that was killed goes on where it was, and its output is what it would have been.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate run pipelines/demo.toml\n  curate run pipelines/demo.toml --set dedup.threshold=0.7 --set input=corpus/ --dry-run\n  curate run pipelines/fineweb-like.toml --set 'input=crawl/*.warc.gz' --set run-dir=run/"
)]
pub(crate) struct RunCommand {
    /// The pipeline file
    #[arg(value_name = "FILE.toml")]
    pipeline: PathBuf,

    /// Change an option: `STAGE.OPTION=VALUE`, or `OPTION=VALUE` at the top of the file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Print the plan and the equivalent shell pipe, and stop
    #[arg(long)]
    dry_run: bool,

    /// Forget what the run directory holds and begin again
    #[arg(long)]
    restart: bool,
}

pub(crate) fn execute(command: &RunCommand) -> Result<Exit> {
    let name = command.pipeline.display().to_string();
    let text = std::fs::read_to_string(&command.pipeline)
        .map_err(|e| Failure::new(e.to_string()).context(format!("cannot read {name}")))?;
    let mut pipeline = Pipeline::parse(&text, &name, &command.set)?;
    if command.dry_run {
        let shown = writeln!(io::stdout(), "{}\n{}", pipeline.plan(), pipeline.shell());
        return shown
            .map(|()| Exit::Done)
            .map_err(|e| curate_core::Error::io("cannot write stdout", e).into());
    }
    match pipeline.top.run_dir.clone() {
        Some(dir) => {
            if command.restart {
                pipeline.restart_shards();
            }
            pipeline.run_resumable(&dir, command.restart)
        }
        None => pipeline.run_fused(),
    }
}

/// A pipeline file, checked.
struct Pipeline {
    top: TopOptions,
    read: ReadOptions,
    /// The stages after `read`.
    stages: Vec<StageOptions>,
    /// Each stage as a command line, for people.
    commands: Vec<Vec<String>>,
}

enum StageOptions {
    Clean(CleanOptions),
    Score(ScoreOptions),
    Dedup(DedupStage),
    Decontaminate(DecontaminateStage),
    Tokenize(TokenizeOptions, Option<PathBuf>),
    Pack(PackOptions),
}

impl StageOptions {
    /// True if the stage looks at each document alone.
    fn is_stateless(&self) -> bool {
        matches!(self, Self::Clean(_) | Self::Score(_))
    }
}

/// What stands at the top of a pipeline file.
#[derive(Args)]
struct TopOptions {
    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,

    /// Directory that makes the run resumable
    #[arg(long)]
    run_dir: Option<PathBuf>,

    /// Input bytes after which a resumable run notes what it has done
    #[arg(long, default_value = "32M", value_parser = byte_size)]
    unit_size: usize,
}

#[derive(Args)]
struct TokenizeStage {
    #[command(flatten)]
    options: TokenizeOptions,

    #[arg(long)]
    output: Option<PathBuf>,
}

impl Pipeline {
    fn parse(text: &str, name: &str, settings: &[String]) -> Result<Self> {
        let mut file = PipelineFile::parse(text, name)?;
        settings.iter().try_for_each(|setting| file.set(setting))?;
        let inputs = file.top.take_positional("input")?;
        let top_arguments = file.top.arguments()?;
        let arguments: Vec<String> = inputs.iter().chain(&top_arguments).cloned().collect();
        let top: TopOptions = file.top_options(&arguments)?;
        let mut read = ReadOptions::default();
        let mut stages = Vec::new();
        let mut commands: Vec<Vec<String>> = vec![vec!["read".to_owned()]];
        for (i, section) in file.stages.iter().enumerate() {
            let arguments = section.arguments()?;
            match section.command.as_str() {
                "read" if i == 0 => {
                    read = file.stage_options(i)?;
                    commands[0].extend(arguments);
                    continue;
                }
                "read" => return Err(file.complain(i, "read must be the first stage")),
                _ => stages.push((i, parse_stage(&file, i)?)),
            }
            commands.push(std::iter::once(section.command.clone()).chain(arguments).collect());
        }
        check_order(&file, &stages)?;
        let (for_run, for_pipe): (Vec<String>, Vec<String>) = top_arguments.into_iter().partition(|a| {
            ["--run-dir", "--unit-size", "--output", "--to", "--shard-size"].iter().any(|o| a.starts_with(o))
        });
        commands[0].extend(for_pipe.into_iter().chain(inputs));
        let outputs =
            for_run.into_iter().filter(|a| !a.starts_with("--run-dir") && !a.starts_with("--unit-size"));
        commands.last_mut().expect("read is always there").extend(outputs);
        let stages = stages.into_iter().map(|(_, stage)| stage).collect();
        Ok(Self { top, read, stages, commands })
    }

    /// Lets `pack` keep nothing of what an interrupted run finished.
    fn restart_shards(&mut self) {
        for stage in &mut self.stages {
            if let StageOptions::Pack(pack) = stage {
                pack.restart = true;
            }
        }
    }

    /// What a run would read and keep, for people.
    fn plan(&self) -> String {
        let mut lines = match find_inputs(&self.top.stream) {
            Ok(found) => {
                let total: Option<u64> = found.files.iter().map(curate_io::InputFile::bytes).sum();
                let size = total.map_or("unknown size".to_owned(), crate::summary::bytes);
                vec![format!("# {} inputs, {size}", found.files.len())]
            }
            // The plan of a pipeline can be seen before its inputs are there.
            Err(failure) => vec![format!("# no inputs yet: {}", failure.error)],
        };
        if let Some(dir) = &self.top.run_dir {
            lines.push(format!("# resumable in {}", dir.display()));
        }
        lines.push(format!("# {} stages in one process; as a pipe:", self.commands.len()));
        lines.join("\n")
    }

    fn shell(&self) -> String {
        let quote = |word: &String| match word
            .contains(|c: char| !(c.is_ascii_alphanumeric() || "-_=./,:".contains(c)))
        {
            true => format!("'{}'", word.replace('\'', r"'\''")),
            false => word.clone(),
        };
        let commands: Vec<String> = self
            .commands
            .iter()
            .map(|words| format!("curate {}", words.iter().map(quote).collect::<Vec<_>>().join(" ")))
            .collect();
        commands.join(" |\n  ")
    }

    /// The links of all stages, ready to run; or those up to one that must see everything first and has not been settled. With
    /// `replace`, shards that are there already are written anew.
    fn prepare(&self, replace: bool, mut settled: Asked<'_>) -> Result<(Vec<Link>, Ending)> {
        let mut links = Vec::new();
        let mut ending = Ending::Documents(self.top.output.clone());
        let mut stages = self.stages.iter().peekable();
        while let Some(stage) = stages.next() {
            links.push(match stage {
                StageOptions::Clean(options) => {
                    links.extend(options.prepare()?);
                    continue;
                }
                StageOptions::Dedup(options) => {
                    links.extend(options.prepare(&mut settled)?);
                    if two_pass::is_unsettled(&links) {
                        break;
                    }
                    continue;
                }
                StageOptions::Score(options) => options.prepare()?,
                StageOptions::Decontaminate(options) => options.prepare()?,
                StageOptions::Tokenize(options, output) => {
                    ending = Ending::Gate;
                    let tokenizer = options.load()?;
                    let end = match stages.peek() {
                        Some(StageOptions::Pack(pack)) => TokenEnd::shards(pack.writer(&tokenizer, replace)?),
                        _ => TokenEnd::stream(output.clone(), &tokenizer)?,
                    };
                    options.prepare(tokenizer, end)?
                }
                StageOptions::Pack(_) => continue,
            });
        }
        Ok((links, ending))
    }

    /// Turns the last gate into files; what stages have to say beyond the common counts.
    fn finish(&self, links: &mut [Link]) -> Result<Vec<Extra>> {
        let mut extras: Vec<_> = links.iter().filter_map(decontaminate::extra).collect();
        if let Some(Link { kind: Kind::Tokenize(_, end), .. }) = links.last_mut() {
            extras.push(end.extra());
            match (end.take_shards(), self.stages.last()) {
                (Some(writer), Some(StageOptions::Pack(pack))) => extras.push(pack.finish(writer)?),
                _ => end.finish_stream()?,
            }
        }
        // An index last: a run that ends before this can be repeated.
        let mut all = dedup::finish(links)?;
        all.append(&mut extras);
        Ok(all)
    }

    fn run_fused(&self) -> Result<Exit> {
        let start = Instant::now();
        let (stream, read) = (&self.top.stream, self.read.clone());
        let mut resolved = find_inputs(stream)?;
        let settling = Settling { command: "run", stream, read: &read, canonical: true };
        let (links, ending) =
            settling.settle(&mut resolved, self.temp_dir(), |settled| self.prepare(false, settled))?;
        let chain = Chain { command: "run", links, ending, stream, read, canonical: true };
        chain.run_over(start, resolved, |links| self.finish(links))
    }

    /// Where a stream goes that must be read more than once.
    fn temp_dir(&self) -> PathBuf {
        let named = self.stages.iter().find_map(|stage| match stage {
            StageOptions::Dedup(dedup) => dedup.temp_dir.clone(),
            _ => None,
        });
        named.unwrap_or_else(std::env::temp_dir)
    }

    /// Runs unit by unit what looks at each document alone, then the rest over the spool.
    fn run_resumable(&self, dir: &Path, restart: bool) -> Result<Exit> {
        let start = Instant::now();
        let stream = &self.top.stream;
        if self
            .stages
            .iter()
            .any(|stage| matches!(stage, StageOptions::Dedup(dedup) if dedup.index.is_some()))
        {
            return Err(Failure::new("an index cannot be used in a run that can be resumed")
                .with_hint("leave out run-dir, or give the output to a `curate dedup --index` of its own"));
        }
        if self.stages.iter().any(|stage| matches!(stage, StageOptions::Dedup(dedup) if dedup.is_semantic()))
        {
            return Err(Failure::new("--semantic cannot be used in a run that can be resumed").with_hint(
                "leave out run-dir, or give the output to a `curate dedup --semantic` of its own",
            ));
        }
        if self
            .stages
            .iter()
            .any(|stage| matches!(stage, StageOptions::Dedup(dedup) if dedup.cuts_substrings()))
        {
            return Err(Failure::new(
                "--substring and --substring-bytes cannot be used in a run that can be resumed",
            )
            .with_hint("leave out run-dir, or give the output to a `curate dedup --substring` of its own"));
        }
        let mut run = RunDirectory::open(dir, restart)?;
        let resolved = find_inputs(stream)?;
        let heads = self.stages.iter().take_while(|stage| stage.is_stateless()).count();
        let units = plan_units(resolved.files, self.top.unit_size as u64, &self.unit_options(heads)?)?;
        let key = output_key(&units, &self.fingerprint()?);
        let (begun, complete) = run.output_state(&key);
        if complete {
            if !stream.voice.quiet {
                ui::say(&format!("run: nothing to do, the outputs of {} are complete", dir.display()));
            }
            return Ok(Exit::Done);
        }
        run.sweep(&units);
        let mut settled = Settled::default();
        let (mut links, mut ending) = self.prepare(begun, settled.ask())?;
        if !two_pass::is_unsettled(&links) {
            run.set_output_state(&key, false)?;
        }
        let heads = links.iter().take_while(|link| link.kind.is_stateless()).count();
        let mut tails = links.split_off(heads);
        let mut report = Report::default();
        let mut spool = Vec::new();
        for unit in units {
            let key = unit.key.clone();
            if run.find(&key).is_none() {
                let finished = self.run_unit(&run, unit, &mut links)?;
                run.add(finished)?;
            }
            let finished = run.find(&key).expect("found, or added just now");
            report.append(finished.report.clone());
            spool.push((key, finished.runs.clone()));
        }
        let files: Vec<_> = spool.iter().map(|(key, runs)| (run.spool(key), runs.clone())).collect();
        let codec = curate_io::Records::new("text", "id")?;
        while two_pass::is_unsettled(&tails) {
            let source = SpoolReader::new(Vec::clone(&files), stream.block_size);
            let pass = Pass { command: two_pass::FIRST_PASS, stream, progress: source.progress() };
            settled.add(two_pass::gather(&pass, source, &codec, tails)?);
            (tails, ending) = self.prepare(begun, settled.ask())?;
            tails.drain(..heads);
            if !two_pass::is_unsettled(&tails) {
                run.set_output_state(&key, false)?;
            }
        }
        let source = SpoolReader::new(files, stream.block_size);
        let mut sink = document_sink(&ending, resolved.roots, &mut tails)?;
        let pass = Pass { command: "run", stream, progress: source.progress() };
        let tail = pass.run(source, &codec, &mut tails, &mut sink)?;
        decontaminate::check_removed(&mut tails, &tail)?;
        two_pass::check(&tails)?;
        report = report.then(tail);
        sink.finish()?;
        let extras = self.finish(&mut tails)?;
        let keys: Vec<&str> = spool.iter().map(|(key, _)| key.as_str()).collect();
        join_logs(&run, &keys, &links)?;
        run.set_output_state(&key, true)?;
        links.append(&mut tails);
        let summary = Summary {
            command: "run",
            parameters: summary_parameters(stream, &links),
            report,
            extras,
            seconds: start.elapsed().as_secs_f64(),
            usage: usage(),
        };
        summary.publish(stream, &links)
    }

    /// All that the outputs depend on besides the inputs.
    fn fingerprint(&self) -> Result<serde_json::Value> {
        let items = |stage: &StageOptions| match stage {
            StageOptions::Decontaminate(options) => Some(options.fingerprint()),
            _ => None,
        };
        let items: Vec<serde_json::Value> = self.stages.iter().filter_map(items).collect::<Result<_>>()?;
        Ok(match items.is_empty() {
            true => json!(self.commands),
            false => json!([&self.commands, items]),
        })
    }

    /// Everything but the files that the spool of a unit depends on.
    fn unit_options(&self, heads: usize) -> Result<serde_json::Value> {
        let mut input = json!(self.top.stream);
        let fields = input.as_object_mut().expect("options are an object");
        fields.remove("inputs");
        fields.remove("max_malformed");
        let stages = self.stages.iter().take(heads);
        let stages: Vec<serde_json::Value> = stages
            .map(|stage| match stage {
                StageOptions::Clean(options) => options.fingerprint(),
                StageOptions::Score(options) => options.fingerprint(),
                _ => unreachable!("the head of a pipeline holds stateless stages only"),
            })
            .collect::<Result<_>>()?;
        Ok(json!({ "input": input, "read": self.read, "stages": stages }))
    }

    fn run_unit(
        &self,
        run: &RunDirectory,
        unit: Unit,
        links: &mut [Link],
    ) -> Result<crate::resume::Finished> {
        let stream = &self.top.stream;
        let mut spool = SpoolWriter::create(&run.spool(&unit.key))?;
        for (stage, link) in links.iter().enumerate() {
            for (n, (_, style)) in link.logs.iter().enumerate() {
                let path = run.log(&unit.key, stage, n);
                spool.add_log(stage..stage + link.covers, DropLog::create(&path, *style, link.kind.name())?);
            }
        }
        let inputs = Inputs::new(unit.files.clone(), self.read.input_options(stream)?);
        let codec = self.read.codec(stream, true)?;
        let pass = Pass { command: "run", stream, progress: inputs.progress() };
        let report = pass.run(inputs, &codec, links, &mut spool)?;
        Ok(unit.finished(spool.finish()?, report))
    }
}

/// Writes the logs of all units one after the other to where they were asked for.
fn join_logs(run: &RunDirectory, keys: &[&str], links: &[Link]) -> Result<()> {
    for (stage, link) in links.iter().enumerate() {
        for (n, (path, _)) in link.logs.iter().enumerate() {
            let mut output = Output::create(Some(path))?;
            for key in keys {
                curate_io::copy_decompressed(&run.log(key, stage, n), &mut output)?;
            }
            output.finish()?;
        }
    }
    Ok(())
}

fn parse_stage(file: &PipelineFile, index: usize) -> Result<StageOptions> {
    Ok(match file.stages[index].command.as_str() {
        "clean" => StageOptions::Clean(file.stage_options(index)?),
        "score" => StageOptions::Score(file.stage_options(index)?),
        "dedup" => StageOptions::Dedup(file.stage_options(index)?),
        "decontaminate" => StageOptions::Decontaminate(file.stage_options(index)?),
        "tokenize" => {
            let TokenizeStage { options, output } = file.stage_options(index)?;
            StageOptions::Tokenize(options, output)
        }
        "pack" => StageOptions::Pack(file.stage_options(index)?),
        _ => {
            return Err(file
                .complain(index, "unknown command")
                .with_hint("stages are read, clean, score, dedup, decontaminate, tokenize and pack"));
        }
    })
}

/// Tokens come after documents, and shards after tokens.
fn check_order(file: &PipelineFile, stages: &[(usize, StageOptions)]) -> Result<()> {
    for (position, (i, stage)) in stages.iter().enumerate() {
        let wrong = |message: &str| Err(file.complain(*i, message));
        let next = stages.get(position + 1).map(|(_, stage)| stage);
        let previous = position.checked_sub(1).map(|p| &stages[p].1);
        match (stage, next) {
            (StageOptions::Tokenize(..), None | Some(StageOptions::Pack(_))) => {}
            (StageOptions::Tokenize(..), Some(_)) => return wrong("only pack can follow tokenize"),
            (StageOptions::Pack(_), Some(_)) => return wrong("pack must be the last stage"),
            (StageOptions::Pack(_), None) if !matches!(previous, Some(StageOptions::Tokenize(..))) => {
                return wrong("pack needs a tokenize stage before it");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        input = ["a.jsonl", "b/"]
        threads = 3
        [[stage]]
        command = "clean"
        set = ["min_words=20"]
        [[stage]]
        command = "dedup"
        minhash = true
        [[stage]]
        command = "tokenize"
        tokenizer = "bytes"
        [[stage]]
        command = "pack"
        output = "out dir"
        seq_len = [128, 256]
        split = "val=0.1"
    "#;

    /// The error with its causes, and the hint.
    fn fault(text: &str, settings: &[&str]) -> (String, Option<String>) {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        let failure = Pipeline::parse(text, "p.toml", &settings).err().expect("a fault");
        let mut message = failure.error.to_string();
        let mut cause = failure.error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        (message, failure.hint)
    }

    #[test]
    fn a_pipeline_is_its_shell_pipe() {
        let settings = ["dedup.threshold=0.7".to_owned(), "pack.seq-len=64".to_owned()];
        let pipeline = Pipeline::parse(GOOD, "p.toml", &settings).map_err(|f| f.error.to_string()).unwrap();
        assert_eq!(
            pipeline.shell(),
            "curate read --threads=3 a.jsonl b/ |\n  \
             curate clean --set=min_words=20 |\n  \
             curate dedup --minhash --threshold=0.7 |\n  \
             curate tokenize --tokenizer=bytes |\n  \
             curate pack '--output=out dir' --split=val=0.1 --seq-len=64"
        );
    }

    #[test]
    fn faults_are_named_before_anything_starts() {
        let (message, hint) = fault(&GOOD.replace("minhash", "minhsh"), &[]);
        assert_eq!(message, "p.toml:9: stage 2 (dedup): unknown option `minhsh`");
        assert_eq!(hint.as_deref(), Some("did you mean `minhash`?"));
        let check = |text: &str, part: &str| {
            let (message, _) = fault(text, &[]);
            assert!(message.contains(part), "{message}");
        };
        check("", "no [[stage]]");
        check("x = ", "p.toml is not TOML");
        check("[[stage]]\nrecipe = \"x\"", "p.toml:1: stage 1: no command");
        check("[[stage]]\ncommand = \"wash\"", "p.toml:1: stage 1 (wash): unknown command");
        check("[[stage]]\ncommand = \"pack\"\noutput = \"x\"", "pack needs a tokenize stage");
        check(&GOOD.replace("command = \"dedup\"", "command = \"read\""), "p.toml:7: stage 2 (read)");
        check(&GOOD.replace("val=0.1\"\n", "val=0.1\"\nseed = -1\n"), "p.toml:18: stage 4 (pack)");
        check(&GOOD.replace("threads = 3", "threads = [[1]]"), "threads: expected a string or a number");
        check(
            &GOOD.replace("threads = 3", "thread = 3"),
            "p.toml:3: the top of the file: unknown option `thread`",
        );
        assert!(fault(GOOD, &["wash.x=1"]).0.contains("no stage wash"));
        assert!(fault(GOOD, &["nothing"]).0.contains("no `=`"));
        assert!(fault(GOOD, &["pack.sed=1"]).0.starts_with("p.toml with --set: stage 4 (pack)"));
    }
}
