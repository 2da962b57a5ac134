//! Where PostgreSQL is: the URL, the settings of every connection, the migrations, and what its errors mean.

use std::error::Error as _;
use std::time::{Duration, Instant};

use tidemill_address::Address;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::{Error, Result};

pub(crate) const EXAMPLE: &str =
    "postgres://user@host:5432/database?password_file=/path&sslmode=verify-full&sslrootcert=/path&schema=tidemill";
const PARAMETERS: &[&str] = &["password_file", "sslmode", "sslrootcert", "schema"];
/// How long it may take to connect.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long a start waits for a server that is not there yet.
const START: Duration = Duration::from_secs(15);
/// What the server allows: a statement ends, a transaction that does nothing is undone, and a client that has vanished is noticed, so that
/// nobody's locks outlive him for long.
const LIMITS: &str = "-c statement_timeout=5s -c idle_in_transaction_session_timeout=5s \
                      -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3";

/// The steps from an empty schema to the present one. A step that was released never changes.
const MIGRATIONS: &[(&str, &str)] =
    &[("V1__records_and_outbox", include_str!("migrations/V1__records_and_outbox.sql"))];

pub(super) struct Server {
    address: Address,
    schema: String,
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

/// The half of a connection that does its I/O: someone must poll it.
pub(super) type Driver = Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>;

impl Server {
    pub(super) fn parse(url: &str) -> Result<Server> {
        let unavailable = |reason: String| Error::Unavailable { url: tidemill_address::masked(url), reason };
        let address = Address::parse(url, PARAMETERS, EXAMPLE).map_err(|error| unavailable(error.to_string()))?;
        Server::at(address).map_err(|error| unavailable(error.to_string()))
    }

    fn at(address: Address) -> std::result::Result<Server, Box<dyn std::error::Error>> {
        let (host, port) = address.host_and_port(5432, EXAMPLE)?;
        let schema = address.get("schema").unwrap_or("tidemill").to_owned();
        if !schema.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
            return Err(address.wrong("schema", "use small letters, digits and _").into());
        }
        let roots = address.file("sslrootcert")?;
        let (mode, tls) = match (address.get("sslmode").unwrap_or("prefer"), roots) {
            ("disable", _) => (SslMode::Disable, tls::unverified()?),
            ("prefer", None) => (SslMode::Prefer, tls::unverified()?),
            ("require", None) => (SslMode::Require, tls::unverified()?),
            // As libpq has it: with an authority at hand, it is asked for its signature.
            ("prefer", roots) => (SslMode::Prefer, tls::verify_ca(roots)?),
            ("require" | "verify-ca", roots) => (SslMode::Require, tls::verify_ca(roots)?),
            ("verify-full", roots) => (SslMode::Require, tls::verify_full(roots)?),
            _ => return Err(address.wrong("sslmode", "use disable, prefer, require, verify-ca or verify-full").into()),
        };
        let mut config = Config::new();
        config.host(host).port(port).ssl_mode(mode).connect_timeout(CONNECT).tcp_user_timeout(CONNECT);
        config.keepalives_idle(CONNECT).keepalives_interval(Duration::from_secs(2)).keepalives_retries(3);
        config.application_name("tidemill").options(format!("{LIMITS} -c search_path={schema}"));
        match address.user() {
            Some(user) => config.user(user),
            None => return Err(format!("it names no user: {EXAMPLE}").into()),
        };
        match address.path() {
            "" => return Err(format!("it names no database: {EXAMPLE}").into()),
            database => config.dbname(database),
        };
        if let Some(password) = address.password()? {
            config.password(password);
        }
        Ok(Server { schema, config, tls: MakeRustlsConnect::new(tls), address })
    }

    /// A connection of its own, outside the pool.
    pub(super) async fn connect(&self) -> Result<(Client, Driver)> {
        match tokio::time::timeout(CONNECT, self.config.connect(self.tls.clone())).await {
            Ok(connected) => connected.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.unavailable(format!("no answer within {} s", CONNECT.as_secs()))),
        }
    }

    /// A connection that is polled until its client is dropped or it fails.
    async fn attended(&self) -> Result<Client> {
        let (client, driver) = self.connect().await?;
        tokio::spawn(driver);
        Ok(client)
    }

    /// Brings the schema to this version, while others who start at the same time wait.
    pub(super) async fn migrate(&self) -> Result<()> {
        let begin = Instant::now();
        let mut client = loop {
            match self.attended().await {
                Err(error) if begin.elapsed() < START => {
                    tracing::warn!(%error, "waiting for the resource store");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                other => break other?,
            }
        };
        let steps: std::result::Result<Vec<_>, _> =
            MIGRATIONS.iter().map(|(name, sql)| refinery::Migration::unapplied(name, sql)).collect();
        let steps = steps.map_err(|error| self.unavailable(error.to_string()))?;
        let schema = &self.schema;
        // The lock ends with the connection. Whoever waits for it may wait for as long as a migration takes.
        let prepare = format!(
            "SET statement_timeout = 0;
             SELECT pg_advisory_lock(hashtext('tidemill'), hashtext('{schema}'));
             DO $$ BEGIN
                 IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF;
             END $$"
        );
        client.batch_execute(&prepare).await.map_err(|error| self.failed(&error))?;
        let report = refinery::Runner::new(&steps).run_async(&mut client).await;
        let applied = report
            .map_err(|error| self.unavailable(format!("its tables cannot be brought to this version: {error}")))?;
        for step in applied.applied_migrations() {
            tracing::info!(schema, %step, "the resource store has a new table layout");
        }
        Ok(())
    }

    /// The channel on which replicas wake each other.
    pub(super) fn channel(&self) -> String {
        format!("tidemill_{}", self.schema)
    }

    pub(super) fn unavailable(&self, reason: String) -> Error {
        Error::Unavailable { url: self.address.to_string(), reason }
    }

    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> Error {
        if error.code() == Some(&SqlState::DISK_FULL) {
            return Error::DiskFull(self.address.to_string());
        }
        // The cause says it; the error itself only where in the protocol that was.
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        self.unavailable(reason)
    }
}
