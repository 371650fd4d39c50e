//! What can go wrong in the trainer, with the facts and, where there is one, the remedy.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong in the trainer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shard set could not be opened or read.
    #[error(transparent)]
    Shards(#[from] curate_shards::Error),
    /// A tensor operation failed inside libtorch.
    #[error("tensor operation failed: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// What tch does not offer failed inside libtorch, or is not there.
    #[error(transparent)]
    Shim(#[from] curate_shim::Error),
    /// The fused engine cannot run on this GPU.
    #[error("the fused engine cannot run on this GPU: {problem}")]
    FusedCuda { problem: String },
    /// A package of the compiled step is not one for this run.
    #[error("{path}: {problem}", path = .path.display())]
    Package { path: PathBuf, problem: String },
    /// A file or directory could not be read or written.
    #[error("{path}: {error}", path = .path.display())]
    Io { path: PathBuf, error: std::io::Error },
    /// Another process trains in the run directory.
    #[error("{run} is in use by another process", run = .run.display())]
    Busy { run: PathBuf },
    /// A token id that the tokenizer does not have.
    #[error("token id {id} in split {split:?} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange { split: String, id: u32, vocab_size: u32 },
    /// A JSON file does not have the expected form.
    #[error("{path}: not a valid {what}", path = .path.display())]
    Json { path: PathBuf, what: &'static str, source: serde_json::Error },
    /// An option's value cannot be used.
    #[error("{flag}: {problem}")]
    Option { flag: &'static str, problem: String },
    /// A settings file says what cannot be.
    #[error("{path}:{line}: {problem}", path = .path.display())]
    Settings { path: PathBuf, line: usize, problem: String },
    /// The device that was asked for cannot be used.
    #[error("device {device} cannot be used: {problem}")]
    Device { device: String, problem: String },
    /// The run directory already holds checkpoints.
    #[error("{run} already holds a run with a checkpoint at step {step}", run = .run.display())]
    RunExists { run: PathBuf, step: u64 },
    /// There is no checkpoint where one is needed.
    #[error("{run} has no complete checkpoint", run = .run.display())]
    NoCheckpoint { run: PathBuf },
    /// A run cannot be resumed with another value of this option.
    #[error("cannot resume with another {flag}: the run has {recorded}, asked for {asked}")]
    ResumeMismatch { flag: String, recorded: String, asked: String },
    /// The shards are not the ones that the run was made from.
    #[error("{shards} is not the shard set of this run: {problem}", shards = .shards.display())]
    OtherShards { shards: PathBuf, problem: String },
    /// A checkpoint's file is damaged.
    #[error("{path}: damaged checkpoint: {problem}", path = .path.display())]
    Damaged { path: PathBuf, problem: String },
    /// The loss or the gradient is not a finite number.
    #[error("the {quantity} is no finite number at step {step}; the model was not updated")]
    NotFinite { quantity: String, step: u64 },
    /// One update after the other was not made.
    #[error("{in_a_row} updates in a row were not made, the last at step {step}: {cause}")]
    Spikes { step: u64, in_a_row: u32, cause: String },
    /// The model gives what is no finite number.
    #[error("{quantity} is {value}")]
    NotFiniteModel { quantity: &'static str, value: f64 },
    /// The stream of token ids is not what `curate embed` writes.
    #[error("the token ids on standard input are damaged: {problem}")]
    Ids { problem: String },
    /// A model of another program cannot be taken over.
    #[error("{path}: {problem}", path = .path.display())]
    Foreign { path: PathBuf, problem: String },
    /// The model has a shape that the format cannot say.
    #[error("this model cannot be exported to {format}: {problem}")]
    NoSuchForm { format: &'static str, problem: String },
    /// The split has nothing to train on or to score.
    #[error("split {split:?} of {shards} has no {what}", shards = .shards.display())]
    NothingThere { shards: PathBuf, split: String, what: &'static str },
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The data thread ended before its time.
    #[error("the thread that reads batches stopped unexpectedly")]
    LoaderStopped,
    /// The thread that writes checkpoints panicked.
    #[error("the thread that writes checkpoints stopped unexpectedly")]
    SaverStopped,
    /// The processes of a run could not work together.
    #[error("rank {rank}: {problem}")]
    Collective { rank: u32, problem: String },
    /// The environment says something about the processes of a run that makes no sense.
    #[error("{name} {problem}")]
    Environment { name: &'static str, problem: String },
}

impl Error {
    /// What the user can do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Shards(error) => error.hint(),
            Error::RunExists { .. } => {
                Some("add --resume to continue it, or choose another directory with -o".into())
            }
            Error::NoCheckpoint { run } => {
                Some(format!("train one first: curate train SHARDS -o {}", run.display()))
            }
            Error::ResumeMismatch { flag, .. } => {
                Some(format!("leave {flag} out (a resumed run keeps its options), or start a new run with another -o"))
            }
            Error::TokenOutOfRange { .. } => Some("the shards are damaged; check them with: curate verify".into()),
            Error::OtherShards { .. } => Some(
                "name the shard set that the run was trained on, or go on with other rows on purpose: --force-data".into(),
            ),
            Error::Damaged { .. } => {
                Some("remove that checkpoint's directory; the one before it is then used".into())
            }
            Error::NotFinite { .. } => {
                Some("a smaller --lr, a longer --warmup or --dtype fp32 may help, and --spike-sigma skips a bad batch; the last checkpoint is intact".into())
            }
            Error::Spikes { .. } => Some(
                "the model is broken rather than the data: go on from an earlier checkpoint, or take a smaller --lr".into(),
            ),
            Error::NotFiniteModel { .. } => Some("the checkpoint's weights are not usable: try an earlier one".into()),
            Error::Foreign { .. } => Some(
                "gpt2, llama and qwen3 models as safetensors, and llama models as GGUF in F32, F16, Q4_0, Q4_1 or Q8_0 are read".into(),
            ),
            Error::NoSuchForm { .. } => Some("the gpt2-* and llama-* presets can be exported as they are".into()),
            Error::Collective { .. } => Some("when one rank ends, the others cannot go on: look for another one's error".into()),
            Error::Environment { .. } => Some(
                "start the ranks with torchrun or srun, or let one process start them: curate train --nproc N".into(),
            ),
            Error::Ids { .. } => Some("call `curate embed`, and look above for what ended it".into()),
            Error::Shim(curate_shim::Error::Cuda { .. }) | Error::FusedCuda { .. } => Some(fused_cuda_hint(&self.to_string())),
            Error::Package { path, .. } => Some(format!(
                "make it for this run: python3 python/export_step.py RUN/config.json -o {}; or use another --engine",
                path.display()
            )),
            Error::Device { device, .. } if device.starts_with("cuda") => Some(
                "use --device cpu, or make a libtorch that can use the GPU: python3 tools/bootstrap.py --cuda".into(),
            ),
            Error::Torch(error) if error.to_string().contains("out of memory") => {
                Some("a smaller --micro-batch needs less memory and gives the same step".into())
            }
            _ => None,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |error| Error::Io { path: path.to_owned(), error }
    }

    pub(crate) fn option(flag: &'static str, problem: impl Into<String>) -> Error {
        Error::Option { flag, problem: problem.into() }
    }
}

/// What to do about a fused engine that the GPU or the build refuses.
fn fused_cuda_hint(message: &str) -> String {
    let remedy = match message {
        text if text.contains("NVRTC") && text.contains("not found") => {
            "python3 tools/bootstrap.py --cuda brings NVRTC, CURATE_NVRTC=FOLDER names another; or use "
        }
        text if text.contains("header files of CUDA") => {
            "python3 tools/bootstrap.py fetches them; build again, or use "
        }
        _ => "use ",
    };
    format!("{remedy}--engine reference")
}

/// libtorch puts a C++ stack trace below its message; a person needs the message.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    let text = text.split("Exception raised from").next().unwrap_or_default();
    text.trim().trim_start_matches("Internal torch error: ").lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_errors_lose_their_stack_trace() {
        let a = tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu));
        let error = Error::from(a.f_matmul(&a).expect_err("2x3 times 2x3 does not exist"));
        let text = error.to_string();
        assert!(text.contains("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"), "{text}");
        assert!(!text.contains("Exception raised") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_resume_mismatch_names_the_flag_and_both_values() {
        let error =
            Error::ResumeMismatch { flag: "--steps".into(), recorded: "200".into(), asked: "300".into() };
        assert_eq!(error.to_string(), "cannot resume with another --steps: the run has 200, asked for 300");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("leave --steps out")));
    }
}
