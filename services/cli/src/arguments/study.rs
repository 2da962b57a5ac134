//! The command line of `study`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const STUDY: &str = "\
A study's file holds a training job, the fields to search over, and how:
  training_job:                      # what every trial trains; the parameters replace fields of it
    model: models/sotu
    dataset_digest: sha256:...       # `tidemill datasets list` and `get` have it
    spec:
      architecture: {llama: {hidden_size: 128, ...}}
      steps: 400
      batch_size: 16
      sequence_length: 128
      optimizer: {learning_rate: 1e-3}
      schedule: {warmup_steps: 20}
  parameters:
    - field: spec.optimizer.learning_rate
      range: {low: 1e-4, high: 1e-1, log: true}
    - field: spec.batch_size
      choices: {values: [8, 16, 32]}
  max_trials: 20
  seed: 1
  tree_parzen_estimator: {}          # or random_search: {}
  successive_halving: {min_steps: 40}  # stops losers early; leave it out to run every trial to its end

Examples:
  tidemill study run --check rate.yaml     only check the file: all mistakes at once, with their lines
  tidemill study run rate.yaml --id rate   follow to the end; Ctrl-C leaves it running
  tidemill study show rate                 the trials so far

All fields: proto/tidemill/training/v1/study_service.proto. The same file gives the same trials, on one CPU.";

/// `study`.
#[derive(Debug, Args)]
pub(crate) struct Study {
    #[command(subcommand)]
    pub(crate) verb: StudyVerb,
}

/// A verb of studies.
#[derive(Debug, Subcommand)]
pub(crate) enum StudyVerb {
    /// Check a study's file, start the study and follow it to its end.
    #[command(after_help = STUDY)]
    Run {
        /// The study's file.
        file: PathBuf,
        /// Only check the file; needs no server.
        #[arg(long)]
        check: bool,
        /// Id of the study, of which its jobs are called <ID>-0, <ID>-1, ... [default: the server's choice].
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        id: String,
        /// Print the study's name and return.
        #[arg(long)]
        detach: bool,
    },
    /// Show the trials of a study as a table; `*` marks the best.
    #[command(after_help = "Example:\n  tidemill study show rate --plot rate.svg")]
    Show {
        /// `studies/<id>`, or the id alone.
        name: String,
        /// Also write a picture of the trials (SVG).
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
    /// List studies, newest first.
    List {
        /// Most to list.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Stop a study and the trials that run.
    Cancel {
        /// `studies/<id>`, or the id alone.
        name: String,
    },
}
