//! `curate completions` and `curate man`: what shells and `man` know of the command line, from its own definition.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use curate_io::write_atomically;

use crate::cli::Cli;
use crate::failure::{Exit, Failure, Result};
use crate::ui;

/// Print completions for a shell
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate completions bash > ~/.local/share/bash-completion/completions/curate\n  curate completions zsh > ~/.zfunc/_curate"
)]
pub(crate) struct CompletionsCommand {
    shell: Shell,
}

/// Print the manual page of curate, or write those of all its commands to a directory
#[derive(Args)]
#[command(after_help = "Examples:\n  curate man | man -l -\n  curate man -o ~/.local/share/man/man1")]
pub(crate) struct ManCommand {
    /// Write all pages to this directory: curate.1, curate-read.1, …
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn execute(command: &CompletionsCommand) -> Result<Exit> {
    let mut script = Vec::new();
    generate(command.shell, &mut Cli::command(), "curate", &mut script);
    ui::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub(crate) fn man(command: &ManCommand) -> Result<Exit> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let Some(dir) = &command.output else {
        ui::print(&String::from_utf8_lossy(&page(&Man::new(cli))?))?;
        return Ok(Exit::Done);
    };
    let commands: Vec<clap::Command> = cli.get_subcommands().cloned().collect();
    for command in [cli].into_iter().chain(commands) {
        let man = Man::new(command);
        write_atomically(&dir.join(man.get_filename()), &page(&man)?)?;
    }
    Ok(Exit::Done)
}

fn page(man: &Man) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let rendered = man.render(&mut page);
    rendered.map_err(|e| Failure::new(e.to_string()).context("cannot make the manual page"))?;
    Ok(page)
}
