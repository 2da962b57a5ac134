//! A worker's output for people: whole lines as they come, without the reports.

use std::time::Duration;

use futures::Stream;
use tidemill_chassis::Fault;
use tidemill_launcher::Status as Stands;
use tidemill_proto::Job;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{Jobs, Platform};

/// How often new output is looked for.
const LOOK: Duration = Duration::from_millis(300);

/// Handles of workers that are being started, or wait for room: they have not written anything.
const NOT_YET: [&str; 2] = ["starting", "pending"];

/// Sends the lines that a job's worker wrote; with `follow` also those to come, until the job has ended.
///
/// # Errors
/// No such job.
pub async fn log<J: Job>(
    platform: &Platform,
    jobs: &Jobs<J>,
    service: &str,
    name: &str,
    follow: bool,
) -> Result<impl Stream<Item = Result<String, Status>> + Send + use<J>, Fault> {
    let job = jobs.get(name).await?;
    let (sender, receiver) = mpsc::channel(4);
    let (launcher, jobs, name) = (platform.launcher.clone(), jobs.clone(), name.to_owned());
    let id = super::run::worker_id(service, job.uid());
    tokio::spawn(async move {
        let (mut offset, mut lines, mut handle) = (0, Lines::default(), String::new());
        loop {
            // Looked at before the output is read: what was written before the end is then read for sure.
            let ended = !follow || jobs.get(&name).await.map_or(true, |job| job.ended());
            if let Ok(Stands::Running { handle: present }) = launcher.status(&id).await
                && !NOT_YET.contains(&present.as_str())
                && present != handle
            {
                // A worker that was started again writes to a fresh log.
                if !handle.is_empty() {
                    (offset, lines) = (0, Lines::default());
                }
                handle = present;
            }
            loop {
                let bytes = match launcher.log(&id, offset).await {
                    Ok(bytes) if bytes.is_empty() => break,
                    Ok(bytes) => bytes,
                    Err(error) => {
                        let _gone = sender.send(Err(Status::unavailable(error.to_string()))).await;
                        return;
                    }
                };
                offset += bytes.len() as u64;
                let text = lines.push(&bytes);
                if !text.is_empty() && sender.send(Ok(text)).await.is_err() {
                    return;
                }
            }
            if ended {
                let text = lines.finish();
                if !text.is_empty() {
                    let _gone = sender.send(Ok(text)).await;
                }
                return;
            }
            tokio::select! {
                () = sender.closed() => return,
                () = jobs.stopping().cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Cuts output into whole lines and drops those that are reports.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.partial.extend_from_slice(bytes);
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.partial.drain(..end).collect();
        String::from_utf8_lossy(&whole)
            .split_inclusive('\n')
            .filter(|line| super::process::read_report(line.trim_end()).is_none())
            .collect()
    }

    fn finish(&mut self) -> String {
        if self.partial.is_empty() { String::new() } else { self.push(b"\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn a_log_has_whole_lines_and_no_reports() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\nprogress {\"done\":1}\ntw"), "one\n");
        assert_eq!(lines.push(b"o\nprogress of the work\nprogr"), "two\nprogress of the work\n");
        assert_eq!(lines.push(b"ess {\"done\":2}\nend"), "");
        assert_eq!(lines.finish(), "end\n");
        assert_eq!(lines.finish(), "");
    }
}
