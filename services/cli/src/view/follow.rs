//! Follows a job or a run to its end, over lost connections, until Ctrl-C.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tidemill_proto::r#type::v1::State;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::lines::{Line, Lines};
use super::screen::Screen;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::jobs::{self, AnyJob};
use crate::output::Output;

/// A server that restarts is back within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// How following ended.
pub(crate) enum End {
    /// The job has ended; its last state.
    Ended(Box<AnyJob>),
    /// Ctrl-C: it goes on without us.
    Detached,
}

/// Follows a job or a run, drawing how it stands.
pub(crate) async fn follow(connection: &Connection, output: Output, name: &str) -> Result<End, Failure> {
    let mut screen = Screen::new(output);
    let mut lines = Lines::default();
    let mut watched: HashSet<String> = HashSet::new();
    let (sender, mut news) = mpsc::channel::<Result<AnyJob, Status>>(64);
    let mut watchers = tokio::task::JoinSet::new();
    watchers.spawn(watch(connection.clone(), name.to_owned(), true, sender.clone()).in_current_span());

    let mut redraw = tokio::time::interval(Screen::REDRAW);
    let end = loop {
        let job = tokio::select! {
            job = news.recv() => match job {
                Some(Ok(job)) => job,
                Some(Err(status)) => break Err(status.into()),
                None => break Err(Failure::Failed(format!("{name} cannot be followed any longer"))),
            },
            _ = redraw.tick() => {
                screen.draw(&lines);
                continue;
            }
            _ = tokio::signal::ctrl_c() => break Ok(End::Detached),
        };
        let own = jobs::each!(&job, job => job.name == name);
        match &job {
            AnyJob::Run(run) if own => {
                lines.run(run);
                let begun = run
                    .steps
                    .iter()
                    .filter(|step| step.state() != State::Pending && step.state() != State::Unspecified);
                for resource in begun.map(|step| step.resource.clone()).filter(|resource| jobs::is_job(resource)) {
                    if watched.insert(resource.clone()) {
                        watchers.spawn(watch(connection.clone(), resource, false, sender.clone()).in_current_span());
                    }
                }
            }
            _ if own => lines.0 = vec![Line::alone(&job)],
            _ => lines.job(&job),
        }
        screen.draw(&lines);
        if own && job.ended() {
            // The jobs' last figures may still be on their way.
            for step in last_figures(connection, &watched).await {
                lines.job(&step);
            }
            screen.draw(&lines);
            break Ok(End::Ended(Box::new(job)));
        }
    };
    screen.finish();
    end
}

async fn last_figures(connection: &Connection, watched: &HashSet<String>) -> Vec<AnyJob> {
    let mut found = Vec::new();
    for name in watched {
        found.extend(jobs::get(connection, name).await.ok());
    }
    found
}

/// Sends a job's changes until it ends. A server that goes away is waited for; a refusal is passed on where the job is what is followed.
async fn watch(connection: Connection, name: String, essential: bool, sender: mpsc::Sender<Result<AnyJob, Status>>) {
    let mut lost: Option<Instant> = None;
    loop {
        let failure = match jobs::watch(&connection, &name).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Some(Ok(job)) => {
                        lost = None;
                        let ended = job.ended();
                        if sender.send(Ok(job)).await.is_err() || ended {
                            return;
                        }
                    }
                    Some(Err(status)) => break status,
                    None => break Status::unavailable("the server closed the stream"),
                }
            },
            Err(status) => status,
        };
        let since = *lost.get_or_insert_with(Instant::now);
        let passing = matches!(failure.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
        if !passing || since.elapsed() > PATIENCE {
            if essential {
                // Whoever follows may have left.
                let _ = sender.send(Err(failure)).await;
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
