//! Kafka into datasets, proved and measured against a real broker and real processes.
//!
//! ```text
//!   kafka_ledger kill  [--messages N] [--kills N]   two replicas killed at random, the broker restarted twice; prints the ledger
//!   kafka_ledger bench [--messages N]               one replica, beside a client that only counts; prints JSON rows
//! ```
//!
//! TIDEMILL_TEST_KAFKA is the broker, TIDEMILL_KAFKA_DIR its folder (for restarts by .ci/servers/kafka).
//! TIDEMILL_TEST_RESOURCES and TIDEMILL_TEST_EVENTLOG are the replicas' common stores; without them they share one SQLite file.

mod bench;
mod kill;
mod ledger;
mod processes;
mod recipe;

use std::io::{BufWriter, Write};
use std::process::{Child, ChildStdin, Stdio};

use anyhow::Context as _;
use processes::{kafka_pipe, printed};
use recipe::Recipe;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, usual: u64| match arguments.iter().position(|argument| argument == name) {
        None => Ok(usual),
        Some(at) => {
            arguments.get(at + 1).and_then(|value| value.parse().ok()).with_context(|| format!("{name} needs a number"))
        }
    };
    let brokers = std::env::var("TIDEMILL_TEST_KAFKA").context("TIDEMILL_TEST_KAFKA is not set; run make deps-up")?;
    let messages = number("--messages", 1_000_000)?;
    match arguments.first().map(String::as_str) {
        Some("kill") => kill::run(&brokers, messages, number("--kills", 30)?).await,
        Some("bench") => bench::run(&brokers, messages).await,
        _ => anyhow::bail!("usage: kafka_ledger kill|bench [--messages N] [--kills N]"),
    }
}

/// Appends a recipe's messages to a topic of its own.
struct Production {
    recipe: Recipe,
    next: u64,
    child: Child,
    stdin: BufWriter<ChildStdin>,
}

impl Production {
    fn begin(brokers: &str, topic: &str, recipe: Recipe) -> anyhow::Result<Self> {
        printed(kafka_pipe(&["make", brokers, topic, &recipe.partitions.to_string()], Stdio::null())?)?;
        let mut child = kafka_pipe(&["produce", brokers, topic], Stdio::piped())?;
        let stdin = BufWriter::with_capacity(1 << 20, child.stdin.take().context("stdin is a pipe")?);
        Ok(Self { recipe, next: 0, child, stdin })
    }

    /// Produces up to message `end`.
    fn advance(&mut self, end: u64) -> anyhow::Result<()> {
        for i in self.next..end {
            let value = self.recipe.value(i);
            self.stdin.write_all(&self.recipe.partition(i).to_le_bytes())?;
            let length = value.as_ref().map_or(u32::MAX, |value| value.len() as u32);
            self.stdin.write_all(&length.to_le_bytes())?;
            self.stdin.write_all(value.as_deref().unwrap_or_default())?;
        }
        self.stdin.flush()?;
        self.next = end;
        Ok(())
    }

    /// Ends when every message is acknowledged.
    fn finish(self) -> anyhow::Result<String> {
        drop(self.stdin);
        printed(self.child)
    }
}
