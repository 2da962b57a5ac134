//! One file for each verb.

mod chat;
mod complete;
mod down;
mod feedback;
mod import;
mod lineage;
mod lists;
mod logs;
mod model;
mod promote;
mod run;
mod server;
mod status;
mod study;
mod tensorboard;
mod up;
mod watch;

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::arguments::{Arguments, Command, Global, Sampling};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Output;
use crate::{jobs, output};

/// What commands share.
pub(crate) struct Context {
    global: Global,
    output: Output,
}

impl Context {
    async fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&self.global.server, self.global.api_key.as_deref()).await
    }
}

/// Does what was asked.
pub(crate) async fn execute(arguments: Arguments) -> Result<(), Failure> {
    let output = Output { format: arguments.global.output, quiet: arguments.global.quiet };
    let context = Context { global: arguments.global, output };
    match arguments.command {
        Command::Up(up) => up::execute(&context, &up).await,
        Command::Down(down) => down::execute(&context, &down).await,
        Command::Run(run) => run::execute(&context, &run).await,
        Command::Import(import) => import::execute(&context, &import).await,
        Command::Status => status::execute(&context).await,
        Command::Logs(logs) => logs::execute(&context, &logs).await,
        Command::Tensorboard(tensorboard) => tensorboard::execute(&context, &tensorboard).await,
        Command::Study(study) => study::execute(&context, &study.verb).await,
        Command::Watch(name) => watch::execute(&context, &name.name).await,
        Command::Model(model) => Err(model::execute(&model)),
        Command::Chat(chat) => chat::execute(&context, &chat).await,
        Command::Complete(complete) => complete::execute(&context, &complete).await,
        Command::Datasets(noun) => lists::datasets(&context, &noun.verb).await,
        Command::Models(noun) => lists::models(&context, &noun.verb).await,
        Command::Jobs(noun) => lists::jobs(&context, &noun.verb).await,
        Command::Evaluations(noun) => lists::evaluations(&context, &noun.verb).await,
        Command::Feedback(feedback) => feedback::execute(&context, &feedback).await,
        Command::Lineage(lineage) => lineage::execute(&context, &lineage).await,
        Command::Promote(promote) => promote::execute(&context, &promote).await,
        Command::Cancel(name) => {
            let connection = context.connect().await?;
            let name = jobs::resolve(&connection, &name.name).await?;
            let job = jobs::cancel(&connection, &name).await?;
            if output.for_people() {
                output.note(&format!("asked {name} to stop"))
            } else {
                output.value(&job.json())
            }
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tidemill", &mut script);
            std::io::stdout().write_all(&script).map_err(|error| Failure::Failed(error.to_string()))
        }
    }
}

impl From<&Sampling> for tidemill_proto::r#type::v1::SamplingParameters {
    fn from(flags: &Sampling) -> Self {
        Self {
            temperature: flags.temperature,
            top_k: flags.top_k,
            top_p: flags.top_p,
            seed: flags.seed,
            stop: flags.stop.clone(),
            max_tokens: flags.max_tokens,
        }
    }
}

/// A resource name from a name or an id.
fn named(collection: &str, name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{collection}/{name}") }
}

/// An answer's name from a name, an id, or the id that the HTTP API gave it.
fn answer_name(given: &str) -> String {
    let id = given.strip_prefix("chatcmpl-").or_else(|| given.strip_prefix("cmpl-")).unwrap_or(given);
    named("answers", id)
}

/// Prints what a gate said, a line for each finding.
fn print_findings(findings: &[String]) {
    for finding in findings {
        output::line(&format!("  {finding}"));
    }
}

/// A fresh request id.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
