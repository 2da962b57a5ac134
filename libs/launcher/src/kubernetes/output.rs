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
use crate::Result;

/// Most bytes at a time.
const MOST: u64 = 1 << 20;
/// How much of the end of an output is kept for those who read it again, and for those who read it after its pod was killed.
const KEPT: usize = 4 << 20;
/// How long a stream that flows may take for what was written already.
const FLOWING: Duration = Duration::from_millis(20);
/// How long a stream just opened may take to begin.
const OPENING: Duration = Duration::from_secs(1);
/// How often is looked whether a worker without output has begun.
const LOOK: Duration = Duration::from_millis(500);
/// How long the rest may take once the worker has ended.
const ENDING: Duration = Duration::from_secs(20);
/// After this long without a reader, an output is let go.
const IDLE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Outputs {
    open: std::sync::Mutex<HashMap<String, (Instant, Arc<Mutex<Output>>)>>,
    /// Workers that are known to have ended: their output is read to its end.
    ended: std::sync::Mutex<HashSet<String>>,
}

impl Outputs {
    pub(super) fn has_ended(&self, id: &str) {
        self.ended.lock().expect("no holder of this lock panics").insert(id.to_owned());
    }

    pub(super) fn forget(&self, id: &str) {
        self.open.lock().expect("no holder of this lock panics").remove(id);
        self.ended.lock().expect("no holder of this lock panics").remove(id);
    }

    fn of(&self, id: &str) -> Arc<Mutex<Output>> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.retain(|_, (read, _)| read.elapsed() < IDLE);
        let (read, output) = open.entry(id.to_owned()).or_insert_with(|| (Instant::now(), Arc::default()));
        *read = Instant::now();
        output.clone()
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
        while output.end() < offset + MOST {
            if !matches!(output.source, Source::Open { .. }) {
                let waits = output.asked.is_some_and(|asked| asked.elapsed() < LOOK) && !self.outputs.is_ended(id);
                if waits || !self.open_output(id, &mut output).await? {
                    break;
                }
            }
            if !self.pull(id, &mut output).await {
                break;
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

    /// Reads what has come; says whether there may be more to read at once.
    async fn pull(&self, id: &str, output: &mut Output) -> bool {
        let ended = self.outputs.is_ended(id);
        let Source::Open { stream, skip, patience } = &mut output.source else { return false };
        let mut buffer = vec![0; 64 << 10];
        let wait = if ended { ENDING } else { *patience };
        match timeout(wait, stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => {
                *patience = FLOWING.max(*patience / 4);
                let skipped = (count as u64).min(*skip);
                *skip -= skipped;
                output.push(&buffer[skipped as usize..count]);
                true
            }
            Ok(Ok(_)) if ended => {
                output.source = Source::Drained;
                // Whether another pod came after this one is for the next look.
                true
            }
            // The stream broke, or its pod ended; the next read finds out.
            Ok(_) => {
                output.source = Source::Closed;
                false
            }
            Err(_) if ended => {
                tracing::warn!(worker = id, "the rest of the worker's output does not come; its stream is opened anew");
                output.source = Source::Closed;
                false
            }
            Err(_) => {
                *patience = FLOWING;
                false
            }
        }
    }
}
