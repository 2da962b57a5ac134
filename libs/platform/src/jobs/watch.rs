//! Streams of a job's changes.

use std::time::Duration;

use futures::Stream;
use tidemill_chassis::Fault;
use tidemill_proto::Job;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Jobs;

/// Looks at least this often, because another replica may have written; and at most every `SHORTEST`.
const LONGEST: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(100);

impl<J: Job> Jobs<J> {
    /// The job now and at every change; ends with its last state, or with UNAVAILABLE when this process stops.
    ///
    /// # Errors
    /// No such job.
    pub async fn watch(&self, name: &str) -> Result<impl Stream<Item = Result<J, Status>> + Send + use<J>, Fault> {
        let first = self.get(name).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let (jobs, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut committed = jobs.collection.store().committed();
            let mut bell = jobs.live.bell.subscribe();
            let mut sent: Option<J> = None;
            let mut next = Ok(first);
            loop {
                match next {
                    Ok(job) => {
                        let ended = job.ended();
                        if sent.as_ref() != Some(&job) {
                            sent = Some(job.clone());
                            if sender.send(Ok(job)).await.is_err() {
                                return;
                            }
                        }
                        if ended {
                            return;
                        }
                    }
                    Err(fault) => {
                        let _gone = sender.send(Err(Status::from(fault))).await;
                        return;
                    }
                }
                tokio::time::sleep(SHORTEST).await;
                tokio::select! {
                    () = sender.closed() => return,
                    () = jobs.live.stopping.cancelled() => {
                        let _gone = sender.send(Err(Status::unavailable("this process is stopping; watch again"))).await;
                        return;
                    }
                    _ = committed.changed() => {}
                    _ = bell.changed() => {}
                    () = tokio::time::sleep(LONGEST) => {}
                }
                next = jobs.get(&name).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}
