//! Metrics in Prometheus' text: one recorder a process, and one table of all that is recorded anywhere.

mod process;
mod table;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use table::{Kind, Metric, TABLE};

/// How often what histograms gathered is summed up where nobody asks for it.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process.
#[derive(Clone)]
pub(crate) struct Recorded(PrometheusHandle);

/// Starts to record. A second call in one process changes nothing.
///
/// # Errors
/// Another recorder stands already, or there is no thread.
pub(crate) fn install() -> Result<Recorded, String> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE.get_or_init(start).clone().map(Recorded)
}

fn start() -> Result<PrometheusHandle, String> {
    let mut builder = PrometheusBuilder::new();
    for metric in TABLE {
        if let Kind::Histogram(buckets) = metric.kind {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, buckets).map_err(|error| error.to_string())?;
        }
    }
    let handle = builder.install_recorder().map_err(|error| error.to_string())?;
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    let kept = handle.clone();
    let upkeep = move || loop {
        std::thread::sleep(UPKEEP);
        kept.run_upkeep();
    };
    std::thread::Builder::new().name("metrics".to_owned()).spawn(upkeep).map_err(|error| error.to_string())?;
    metrics::gauge!("tidemill_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

impl Recorded {
    /// All of it, in the text format.
    pub(crate) fn render(&self) -> String {
        let mut text = self.0.render();
        process::render(&mut text);
        text
    }
}
