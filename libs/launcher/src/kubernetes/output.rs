//! A worker's output by offset. The API gives a pod's log only from its beginning, so one stream a worker is kept open: who reads on
//! from where it stopped costs what is new, and who begins anew one pass, over the last MiBs in memory or else from the node.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncReadExt};
use kube::api::LogParams;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{KubernetesLauncher, standing};
use crate::{Error, Result};

/// Most bytes at a time.
const MOST: u64 = 1 << 20;
/// How much of the end of an output is kept for those who read it again, and for those who read it after its pod was killed.
const KEPT: usize = 4 << 20;
/// How long a stream that flows may take for what was written already.
const FLOWING: Duration = Duration::from_millis(20);
/// How long a stream just opened may take to begin.
const OPENING: Duration = Duration::from_secs(1);
/// How often is looked whether a worker without output has begun.
const LOOK: Duration = Duration::from_secs(1);
/// How long the rest may take once the worker has ended.
const ENDING: Duration = Duration::from_secs(20);
/// How often a stream that breaks is opened anew for one read.
const RETRIES: usize = 3;
/// After this long without a reader, an output is let go.
const IDLE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Outputs {
    open: std::sync::Mutex<HashMap<String, Followed>>,
    /// Workers that are known to have ended: their output is read to its end.
    ended: std::sync::Mutex<HashSet<String>>,
}

struct Followed {
    last_read: Instant,
    output: Arc<Mutex<Output>>,
}

impl Outputs {
    /// Notes how a worker was seen to stand; another launcher may have started it again since it ended.
    pub(super) fn saw(&self, id: &str, has_ended: bool) {
        let mut ended = self.ended.lock().expect("no holder of this lock panics");
        if has_ended {
            ended.insert(id.to_owned())
        } else {
            ended.remove(id)
        };
    }

    pub(super) fn forget(&self, id: &str) {
        self.open.lock().expect("no holder of this lock panics").remove(id);
        self.ended.lock().expect("no holder of this lock panics").remove(id);
    }

    fn of(&self, id: &str) -> Arc<Mutex<Output>> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.retain(|_, followed| followed.last_read.elapsed() < IDLE);
        let followed =
            open.entry(id.to_owned()).or_insert_with(|| Followed { last_read: Instant::now(), output: Arc::default() });
        followed.last_read = Instant::now();
        followed.output.clone()
    }

    fn is_ended(&self, id: &str) -> bool {
        self.ended.lock().expect("no holder of this lock panics").contains(id)
    }
}

/// The output of one worker: of its pod, after that of the pods that it replaced.
#[derive(Default)]
struct Output {
    /// The pod that is read, by uid, and where its output begins.
    pod: Option<String>,
    origin: u64,
    /// Where what is kept begins.
    start: u64,
    kept: Vec<u8>,
    source: Source,
    /// When the API was last asked for a stream, in vain.
    asked: Option<Instant>,
}

#[derive(Default)]
enum Source {
    #[default]
    Closed,
    Open {
        stream: Pin<Box<dyn AsyncBufRead + Send>>,
        /// Bytes that were read before the stream was opened.
        skip: u64,
        patience: Duration,
    },
    /// The pod has nothing more to say.
    Drained,
}

/// How a read went.
enum Flow {
    /// There may be more at once.
    Comes,
    /// That was all for now.
    Rests,
    /// The stream is no more, and why.
    Broke(String),
}

impl Output {
    fn end(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > 2 * KEPT {
            let gone = self.kept.len() - KEPT;
            self.kept.drain(..gone);
            self.start += gone as u64;
        }
    }

    /// Reads what has come; of a worker that has ended, also what is still on its way.
    async fn pull(&mut self, ended: bool) -> Flow {
        let Source::Open { stream, skip, patience } = &mut self.source else { return Flow::Rests };
        let mut buffer = vec![0; 64 << 10];
        let wait = if ended { ENDING } else { *patience };
        let read = timeout(wait, stream.read(&mut buffer)).await;
        let (next, flow) = match read {
            Ok(Ok(count)) if count > 0 => {
                *patience = FLOWING.max(*patience / 4);
                let skipped = (count as u64).min(*skip);
                *skip -= skipped;
                self.push(&buffer[skipped as usize..count]);
                return Flow::Comes;
            }
            Err(_) if !ended => {
                *patience = FLOWING;
                return Flow::Rests;
            }
            // Whether another pod came after this one is for the next look.
            Ok(Ok(_)) if ended => (Source::Drained, Flow::Comes),
            Ok(Ok(_)) => (Source::Closed, Flow::Broke("the stream ended".to_owned())),
            Ok(Err(error)) => (Source::Closed, Flow::Broke(error.to_string())),
            Err(_) => (Source::Closed, Flow::Broke(format!("nothing came for {} s", ENDING.as_secs()))),
        };
        self.source = next;
        flow
    }

    /// What is kept from an offset on.
    fn from(&self, offset: u64) -> Vec<u8> {
        let at = offset.saturating_sub(self.start).min(self.kept.len() as u64) as usize;
        let end = self.kept.len().min(at + MOST as usize);
        self.kept[at..end].to_vec()
    }
}

impl KubernetesLauncher {
    pub(super) async fn read_output(&self, id: &str, offset: u64) -> Result<Vec<u8>> {
        let output = self.outputs.of(id);
        let mut output = output.lock().await;
        if offset < output.start {
            // Let go already: read again, if the pod is still there.
            *output = Output::default();
        }
        let ended = self.outputs.is_ended(id);
        let mut broken = 0;
        while output.end() < offset + MOST {
            if !matches!(output.source, Source::Open { .. }) {
                let waits = output.asked.is_some_and(|asked| asked.elapsed() < LOOK) && !ended;
                if waits || !self.open_output(id, &mut output).await? {
                    break;
                }
            }
            match output.pull(ended).await {
                Flow::Comes => {}
                Flow::Rests => break,
                // Of a worker that runs, the next read gets the rest. One that has ended has no next read.
                Flow::Broke(_) if !ended => break,
                Flow::Broke(_) if broken < RETRIES => broken += 1,
                Flow::Broke(reason) => {
                    let reason = format!("the output of worker {id} breaks off: {reason}");
                    return Err(Error::Unavailable { url: self.url.clone(), reason });
                }
            }
        }
        Ok(output.from(offset))
    }

    /// Opens the stream of the present pod, unless there is none or all of it was read.
    async fn open_output(&self, id: &str, output: &mut Output) -> Result<bool> {
        output.asked = Some(Instant::now());
        let found = self.look(id).await?;
        let Some(pod) = found.pod() else { return Ok(false) };
        if output.pod != pod.metadata.uid {
            (output.pod, output.origin) = (pod.metadata.uid.clone(), output.end());
            output.source = Source::Closed;
        }
        if matches!(output.source, Source::Drained) {
            return Ok(false);
        }
        if !standing::has_begun(pod) {
            return Ok(false);
        }
        let container = self.template.container();
        if let Some(terminated) = standing::terminated(pod, container).filter(|end| standing::could_not_start(end)) {
            let message = terminated.message.clone().unwrap_or_default();
            output.push(format!("{message}\n").as_bytes());
            output.source = Source::Drained;
            return Ok(false);
        }
        let params = LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.pods.log_stream(name, &params).await {
            Ok(stream) => {
                let skip = output.end() - output.origin;
                output.source = Source::Open { stream: Box::pin(stream), skip, patience: OPENING };
                Ok(true)
            }
            // Not yet started; or gone since.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }
}
