//! Workers: processes that do a job's heavy work. A worker tells its parent how far it is by lines on its output, and leaves its result
//! as a reference in the artifact store, so that neither is lost when the parent dies.

mod enter;
mod log;
mod process;
mod run;

pub use enter::{Ended, enter};
pub use log::log;
pub use process::{EXIT_STOPPED, Stop, WorkerArguments, fail, install_stop, remain, report};
pub use run::{Launch, command, run};

/// The reference under which a worker leaves the digest of its result. `uid` is the job's.
pub fn result_reference(uid: &str) -> String {
    format!("results/{uid}")
}

/// How far a worker is: one line `progress {json}` of its output.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Report {
    /// What it does now: "training".
    pub phase: String,
    /// Units done.
    pub done: i64,
    /// Units in all; 0 while unknown.
    pub total: i64,
    /// What a unit is: "steps".
    pub unit: String,
    /// Seconds left at the present rate.
    pub remaining_seconds: Option<f64>,
    /// Figures by name.
    pub metrics: std::collections::BTreeMap<String, f64>,
}

impl From<Report> for tidemill_proto::r#type::v1::Progress {
    fn from(report: Report) -> Self {
        let remaining = report
            .remaining_seconds
            .filter(|s| s.is_finite() && *s >= 0.0)
            .map(|seconds| prost_types::Duration { seconds: seconds as i64, nanos: (seconds.fract() * 1e9) as i32 });
        Self {
            phase: report.phase,
            done_count: report.done,
            total_count: report.total,
            unit: report.unit,
            remaining,
            metrics: report.metrics,
        }
    }
}

#[cfg(test)]
mod tests;
