//! Two replicas killed at random while a million messages come in, and the broker restarted twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Production;
use crate::ledger::Ledger;
use crate::processes::{Installation, Stores};
use crate::recipe::Recipe;

/// Kills while the version is put together; the others come while it is collected.
const LATE: u64 = 4;

pub(crate) async fn run(brokers: &str, messages: u64, kills: u64) -> anyhow::Result<()> {
    let stores = Stores {
        resources_url: std::env::var("TIDEMILL_TEST_RESOURCES").ok(),
        eventlog_url: std::env::var("TIDEMILL_TEST_EVENTLOG").ok(),
    };
    let folder = tempfile::tempdir()?;
    let recipe = Recipe { messages, partitions: 6, malformed: true };
    let topic = format!("ledger-{}", uuid::Uuid::now_v7().simple());
    let uri = format!("kafka://{brokers}/{topic}");
    let mut production = Production::begin(brokers, &topic, recipe)?;
    let mut chance = Chance::new();
    let begun = Instant::now();

    let mut disturbed = Installation::start(&folder.path().join("disturbed"), 2, &stores)?;
    disturbed.ready().await?;
    let (source, dataset) = disturbed.source(&uri).await?;
    let early = kills.saturating_sub(LATE).max(1);
    let mut restarts = 0;
    for kill in 1..=early {
        production.advance(messages * kill / early)?;
        tokio::time::sleep(Duration::from_millis(500 + chance.below(3500))).await;
        let victim = chance.below(2) as usize;
        disturbed.kill(victim)?;
        eprintln!(
            "{:6.1} s: replica {victim} killed ({kill}), {} produced",
            begun.elapsed().as_secs_f64(),
            messages * kill / early
        );
        if kill == early / 3 || kill == early * 2 / 3 {
            restart_broker()?;
            restarts += 1;
            eprintln!("{:6.1} s: broker restarted", begun.elapsed().as_secs_f64());
        }
    }
    let produced = production.finish()?;
    let version = disturbed.version(&source, &dataset).await?;
    for kill in early + 1..=kills {
        tokio::time::sleep(Duration::from_millis(1000 + chance.below(4000))).await;
        let victim = chance.below(2) as usize;
        disturbed.kill(victim)?;
        eprintln!("{:6.1} s: replica {victim} killed ({kill})", begun.elapsed().as_secs_f64());
    }
    let version = disturbed.end(&version.name).await?;
    eprintln!("{:6.1} s: {} has ended", begun.elapsed().as_secs_f64(), version.name);
    let artifacts = disturbed.artifacts();
    let ledger = Ledger::read(&recipe, &uri, &version, &artifacts).await?;
    drop(disturbed);

    let quiet = Installation::start(&folder.path().join("undisturbed"), 1, &Stores::default())?;
    quiet.ready().await?;
    let (source, dataset) = quiet.source(&uri).await?;
    let undisturbed = quiet.end(&quiet.version(&source, &dataset).await?.name).await?;
    ledger.print(&produced, kills, restarts, &version, &undisturbed);
    ensure!(restarts == 2, "the broker was not restarted twice: too few kills");
    ledger.check(&version, &undisturbed)
}

fn restart_broker() -> anyhow::Result<()> {
    let folder = PathBuf::from(
        std::env::var("TIDEMILL_KAFKA_DIR").context("TIDEMILL_KAFKA_DIR is not set: the broker's folder")?,
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/servers/kafka");
    for verb in ["stop", "start"] {
        let status = Command::new(&script).arg(verb).arg(&folder).status()?;
        ensure!(status.success(), "{} {verb} failed", script.display());
    }
    Ok(())
}

/// Random numbers that differ from run to run; the recipe is what does not.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        eprintln!("seed {seed:016x}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
