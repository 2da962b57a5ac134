//! The real servers under a distributed Tidemill: those that `.ci/deps run` names, or some of a test's own, which it may stop and lose.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tidemill_faults::{Proxy, Server};

/// Addresses of the parts that all processes share.
#[derive(Clone, Debug)]
pub struct Servers {
    /// PostgreSQL.
    pub resources: String,
    /// Kafka.
    pub eventlog: String,
    /// Redis.
    pub cache: String,
    /// S3.
    pub artifacts: String,
}

impl Servers {
    /// The servers in `TIDEMILL_TEST_*`, under a name that nobody else has.
    ///
    /// # Errors
    /// One of them is not named.
    pub fn shared() -> Result<Self> {
        let name = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        Self::named(&name, |variable| {
            std::env::var(variable)
                .with_context(|| format!("{variable} is not set; run `make deps-up`, then `.ci/deps run <command>`"))
        })
    }

    /// Schema, prefixes and folder of the name `name` on servers that `at` knows by their variable.
    fn named(name: &str, at: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let s3 = at("TIDEMILL_TEST_S3")?;
        let (bucket, query) = s3.split_once('?').context("TIDEMILL_TEST_S3 has no parameters")?;
        Ok(Self {
            resources: format!("{}?schema={name}", at("TIDEMILL_TEST_POSTGRES")?),
            eventlog: format!("kafka://{}?topic_prefix={name}.", at("TIDEMILL_TEST_KAFKA")?),
            cache: format!("{}/0?prefix={name}:", at("TIDEMILL_TEST_REDIS")?.trim_end_matches('/')),
            artifacts: format!("{}/{name}?{query}", bucket.trim_end_matches('/')),
        })
    }
}

/// Four servers of a test's own, empty at their start; gone, with what they hold, when dropped.
#[derive(Clone)]
pub struct OwnServers {
    /// Kafka.
    pub kafka: Arc<Server>,
    /// What all clients of this Kafka go through.
    pub to_kafka: Arc<Proxy>,
    /// PostgreSQL.
    pub postgres: Arc<Server>,
    /// Redis.
    pub redis: Arc<Server>,
    /// S3.
    pub s3: Arc<Server>,
}

impl OwnServers {
    /// Starts all four.
    pub async fn start() -> Result<Self> {
        let start = |name: &'static str| tokio::task::spawn_blocking(move || Arc::new(Server::start(name)));
        let (kafka, postgres, redis, s3) =
            tokio::try_join!(start("kafka"), start("postgres"), start("redis"), start("s3"))?;
        let proxy = kafka.variable("TIDEMILL_TEST_KAFKA_PROXY").parse()?;
        let to_kafka = Proxy::start_at(proxy, kafka.variable("TIDEMILL_TEST_KAFKA_BEHIND_PROXY").parse()?).await;
        Ok(Self { kafka, to_kafka: Arc::new(to_kafka), postgres, redis, s3 })
    }

    /// Their addresses.
    ///
    /// # Errors
    /// None, but for a server script that has changed.
    pub fn addresses(&self) -> Result<Servers> {
        Servers::named("tidemill", |wanted| {
            let server = match wanted {
                "TIDEMILL_TEST_KAFKA" => return Ok(self.to_kafka.address().to_string()),
                "TIDEMILL_TEST_POSTGRES" => &self.postgres,
                "TIDEMILL_TEST_REDIS" => &self.redis,
                "TIDEMILL_TEST_S3" => &self.s3,
                unknown => bail!("no server says {unknown}"),
            };
            Ok(server.variable(wanted))
        })
    }
}
