//! The command line.

mod study;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use study::{Study, StudyVerb};

const EXAMPLES: &str = "\
Examples:
  tidemill up --detach                              start a server on this machine
  tidemill run pipelines/demo.yaml                  run a whole turn of the loop and watch it
  tidemill complete sotu 'My fellow Americans,'     let the champion write
  tidemill lineage answers/<id>                     from an answer to the records behind it
  tidemill model inspect ./my-model                 look into model files, without a server

Exit codes:
  0  done
  1  tried, and failed
  2  the command or a file is wrong
  3  refused by a gate
  4  nothing has that name
  5  no server answers";

const MODEL: &str = "\
MODEL is a Hugging Face directory (config.json with model.safetensors or shards) or a GGUF file:
  llama, mistral, qwen2, qwen3     also as GGUF: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K
  gpt2, bert, t5

Verbs (`tidemill model <VERB> --help` tells all of each):
  inspect   what it is: family, sizes, tensors, tokenizer, chat template
  logits    logits of token ids; with labels the loss and its gradients
  generate  continue token ids or a text, by the likeliest token or by beam search
  convert   write it as a Hugging Face directory in float32

Examples:
  tidemill model inspect ./SmolLM2-135M-Instruct.Q4_1.gguf
  tidemill model logits ./my-model --ids ids.json --output logits.safetensors --gradients
  tidemill model generate ./my-model --ids ids.json --max-new-tokens 32 --beams 4
  tidemill model generate ./SmolLM2-135M-Instruct.Q4_1.gguf --chat 'What is the capital of France?'
  tidemill model convert ./SmolLM2-135M-Instruct.Q4_1.gguf ./smollm2";

/// Runs the whole life of a generative model on machines you own: collect, prepare, train, evaluate, gate, serve, learn from feedback.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, after_help = EXAMPLES, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where the server's gRPC listens.
    #[arg(long, global = true, env = "TIDEMILL_SERVER", default_value = "http://127.0.0.1:7460", value_name = "URL")]
    pub(crate) server: String,
    /// API key, where the server asks for one.
    #[arg(long, global = true, env = "TIDEMILL_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// How results are printed. `json` is protobuf's canonical JSON, as the API has it.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Print results and errors, nothing else.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For people who want all of it.
    Yaml,
}

/// A verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server on this machine and wait until it serves.
    #[command(
        after_help = "Examples:\n  tidemill up                                  in the foreground; Ctrl-C stops it\n  tidemill up --detach                         in the background; `tidemill down` stops it\n  tidemill up --data-dir /tmp/try --detach     with data of its own"
    )]
    Up(Up),
    /// Stop the server that runs on a data directory.
    Down(Down),
    /// Check a pipeline file, store it, start a run and follow it.
    #[command(
        after_help = "Examples:\n  tidemill run --check pipelines/demo.yaml     only check the file: all mistakes at once, with their lines\n  tidemill run pipelines/demo.yaml             follow to the end; Ctrl-C leaves it running\n  tidemill run --detach pipelines/demo.yaml    print the run's name and return\n\nEnds with 0 if the candidate was promoted, 3 if the gate refused it, 1 if the run failed."
    )]
    Run(Run),
    /// Register a model that was trained elsewhere: a Hugging Face directory or a GGUF file.
    #[command(
        after_help = "Examples:\n  tidemill import ./SmolLM2-135M-Instruct.Q4_1.gguf --model smollm2\n  tidemill import ./bert-base --model bert --detach\n\nThe file is read where the server's workers are: on this machine, or a folder that they mount."
    )]
    Import(Import),
    /// What the server is doing: health, deployments, latest runs.
    Status,
    /// Print the log of a training job, an evaluation, or all of a pipeline run's jobs.
    Logs(Logs),
    /// Follow a job or a pipeline run to its end.
    Watch(Name),
    /// Write the curves of training jobs as TensorBoard's event files; of a job that runs, live until its end.
    #[command(
        after_help = "Example:\n  tidemill tensorboard trainingJobs/<id> --logdir runs\n  tensorboard --logdir runs"
    )]
    Tensorboard(Tensorboard),
    /// Search for hyper-parameters: trials of a training job, and the best of them.
    Study(Study),
    /// Talk with a model. /good, /bad and /fix TEXT judge the last answer.
    #[command(
        after_help = "In the conversation:\n  /good          the last answer was good\n  /bad           the last answer was bad\n  /fix TEXT      what it should have said\n  /new           begin a new conversation\n  /quit          leave (so does Ctrl-D)\n\nJudgements are stored with consent to learn from them."
    )]
    Chat(Chat),
    /// Let a model continue a text.
    #[command(
        after_help = "Examples:\n  tidemill complete sotu 'The state of our Union is'\n  tidemill complete sotu 'I recommend' --temperature 0 --max-tokens 32 --output json"
    )]
    Complete(Complete),
    /// Raw and prepared datasets.
    Datasets(Noun),
    /// Models and their versions.
    Models(Noun),
    /// Pipeline runs, and the jobs that read, prepare and train.
    Jobs(Noun),
    /// Evaluations.
    Evaluations(Noun),
    /// Judge an answer, so that the next version learns from it.
    #[command(after_help = "Example:\n  tidemill feedback answers/<id> --down --correction 'It is strong.' --consent")]
    Feedback(Feedback),
    /// Draw what something came from and what came from it.
    #[command(
        after_help = "Examples:\n  tidemill lineage answers/<id>              from an answer to the datasets behind its model\n  tidemill lineage answers/<id> --records    and to the records in them\n  tidemill lineage sha256:<record>           from a record to the models that saw it\n  tidemill lineage models/sotu/versions/1    by name, or by 12 digits of a digest"
    )]
    Lineage(Lineage),
    /// Ask the gate to move an alias to a model version.
    Promote(Promote),
    /// Stop a job or a pipeline run.
    Cancel(Name),
    /// Look into model files, compute with them, convert them. Needs no server.
    #[command(
        override_usage = "tidemill model <VERB> <MODEL> ...",
        // The options of every other verb are about a server.
        help_template = "{about}\n\n{usage-heading} {usage}{after-help}\n",
        after_help = MODEL
    )]
    Model(Model),
    /// Print a shell's completion script.
    #[command(
        after_help = "Example:\n  tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill"
    )]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Run in the background, with its log in the data directory.
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

/// `down`.
#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) data: DataDir,
}

/// Where a server keeps everything.
#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Where the server keeps everything [default: what TIDEMILL_CONFIG's file says, or ~/.local/share/tidemill].
    #[arg(long, env = "TIDEMILL__PLATFORM__DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<String>,
    /// The server program [default: `tidemilld` beside this one, or on PATH].
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The pipeline's file.
    pub(crate) file: PathBuf,
    /// Only check the file; needs no server.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the run's name and return.
    #[arg(long)]
    pub(crate) detach: bool,
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The directory or the file.
    pub(crate) path: PathBuf,
    /// Id of the model that gets the version; it is made if it is missing.
    #[arg(long, value_name = "ID")]
    pub(crate) model: String,
    /// Expected sha256 of a file, in hex.
    #[arg(long, value_name = "HEX", default_value = "")]
    pub(crate) sha256: String,
    /// Print the job's name and return.
    #[arg(long)]
    pub(crate) detach: bool,
}

/// One name.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Its resource name, such as `trainingJobs/<id>`; or its id alone.
    pub(crate) name: String,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A training job, an evaluation or a pipeline run.
    pub(crate) name: String,
    /// Wait for more while it runs.
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// `tensorboard`.
#[derive(Debug, Args)]
pub(crate) struct Tensorboard {
    /// Training jobs: `trainingJobs/<id>`, or the id alone.
    #[arg(required = true)]
    pub(crate) jobs: Vec<String>,
    /// Each job gets a folder in here.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) logdir: PathBuf,
}

/// `chat`.
#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// A deployment or model, such as `sotu`.
    pub(crate) model: String,
    /// What the model is told first.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// `complete`.
#[derive(Debug, Args)]
pub(crate) struct Complete {
    /// A deployment or model, such as `sotu`.
    pub(crate) model: String,
    /// The text to continue.
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Keep prompt and answer on the server, so that feedback on it can be learned from.
    #[arg(long)]
    pub(crate) store: bool,
}

/// How tokens are drawn.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sampling {
    /// 0 always takes the likeliest token, 2 is wild.
    #[arg(long, value_name = "0..2")]
    pub(crate) temperature: Option<f64>,
    /// Draw from this many likeliest tokens.
    #[arg(long, value_name = "N")]
    pub(crate) top_k: Option<i32>,
    /// Draw from the likeliest tokens that together reach this probability.
    #[arg(long, value_name = "0..1")]
    pub(crate) top_p: Option<f64>,
    /// The same seed gives the same answer.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// End before this text; can be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Most tokens to write.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<i32>,
}

/// `list` or `get`.
#[derive(Debug, Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// `list` or `get`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List them, newest first.
    List {
        /// Most to list of each kind.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show everything about one.
    Get(Name),
}

/// `feedback`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("judgement").args(["up", "down", "correction"]).multiple(true).required(true))]
pub(crate) struct Feedback {
    /// The answer: `answers/<id>`, or the id that an API response had.
    pub(crate) answer: String,
    /// It was good.
    #[arg(long, conflicts_with = "down")]
    pub(crate) up: bool,
    /// It was bad.
    #[arg(long)]
    pub(crate) down: bool,
    /// What it should have been.
    #[arg(long, value_name = "TEXT")]
    pub(crate) correction: Option<String>,
    /// It may be learned from. Without this it is kept and never trained on.
    #[arg(long)]
    pub(crate) consent: bool,
}

/// `lineage`.
#[derive(Debug, Args)]
pub(crate) struct Lineage {
    /// An answer, a resource name, or a digest (whole, or 12 digits of it).
    pub(crate) of: String,
    /// Also list this many records of each raw dataset reached.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10")]
    pub(crate) records: Option<i32>,
    /// Where the list of records goes on: the token that the page before ended with.
    #[arg(long, value_name = "TOKEN", requires = "records", default_value = "", hide_default_value = true)]
    pub(crate) page_token: String,
}

/// `model`: what stands after it goes to `tidemilld model` as it is, because this program does without libtorch.
#[derive(Debug, Args)]
pub(crate) struct Model {
    #[command(subcommand)]
    pub(crate) verb: ModelVerb,
}

/// A verb with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelVerb {
    /// Any.
    #[command(external_subcommand)]
    Any(Vec<OsString>),
}

/// `promote`.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// `models/<model>/versions/<version>`.
    pub(crate) model_version: String,
    /// What it must reach: `objectives/<id>`, or the id.
    #[arg(long)]
    pub(crate) objective: String,
    /// The alias to move.
    #[arg(long, default_value = "champion")]
    pub(crate) alias: String,
}
