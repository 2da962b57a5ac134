//! The adapter for Redis: one connection for all callers, made when it is first needed, and made anew when it is lost.
//!
//! A cache must be quicker than what it spares: whatever Redis does, a caller knows after [`PATIENCE`] and goes on without it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};
use tidemill_address::Address;
use tokio::sync::Mutex;

use crate::{Cache, Error, Result};

pub(crate) const EXAMPLE: &str = "redis://host:6379/0?password_file=/path&prefix=tidemill: (rediss:// for TLS)";
const PARAMETERS: &[&str] = &["password_file", "prefix", "ssl_ca_file", "ssl_certificate_file", "ssl_key_file"];
/// The longest that a call takes, connecting included.
const PATIENCE: Duration = Duration::from_millis(250);
/// Redis counts times to live in 63 bits of milliseconds since the epoch; thirty years are as good as for ever.
const LONGEST: Duration = Duration::from_secs(86_400 * 365 * 30);

pub(crate) struct RedisCache {
    address: Address,
    prefix: String,
    client: Client,
    // The crate's ConnectionManager does not try again after a refusal while it says hello (Redis is loading its data, a password was
    // changed), so the connection is kept here.
    present: Mutex<Present>,
}

/// The connection of the moment, and how many there were: it is dropped by those alone who have seen this very one fail.
#[derive(Default)]
struct Present {
    connection: Option<MultiplexedConnection>,
    count: u64,
}

impl RedisCache {
    /// Reads the settings. Does not connect: a cache that is away keeps nobody from starting.
    pub(crate) fn open(url: &str) -> Result<RedisCache> {
        let unavailable = |reason: String| Error::Unavailable { url: tidemill_address::masked(url), reason };
        let address = Address::parse(url, PARAMETERS, EXAMPLE).map_err(|error| unavailable(error.to_string()))?;
        let client = client(&address).map_err(|reason| unavailable(reason.to_string()))?;
        let prefix = address.get("prefix").unwrap_or_default().to_owned();
        Ok(RedisCache { address, prefix, client, present: Mutex::default() })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let reason = match tokio::time::timeout(PATIENCE, self.ask(command)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", PATIENCE.as_millis()),
        };
        Err(Error::Unavailable { url: self.address.to_string(), reason })
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let (mut connection, number) = self.connected().await?;
        let answer = command.query_async(&mut connection).await;
        // An answer that is late is lost to its caller; it may be that the server will never answer on this connection.
        if answer.as_ref().is_err_and(|error: &RedisError| error.is_unrecoverable_error() || error.is_timeout()) {
            let mut present = self.present.lock().await;
            if present.count == number {
                present.connection = None;
            }
        }
        answer
    }

    /// The connection that there is, or a new one; of many callers one connects while the others wait for it.
    async fn connected(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut present = self.present.lock().await;
        let connection = match present.connection.clone() {
            Some(connection) => connection,
            None => {
                // Below PATIENCE, so that the failure is known here before the caller goes away.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(PATIENCE * 4 / 5))
                    .set_response_timeout(Some(PATIENCE * 4 / 5));
                let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
                present.count += 1;
                present.connection = Some(connection.clone());
                connection
            }
        };
        Ok((connection, present.count))
    }
}

fn client(address: &Address) -> std::result::Result<Client, Box<dyn std::error::Error>> {
    let (host, port) = address.host_and_port(6379, EXAMPLE)?;
    let database = match address.path() {
        "" => 0,
        path => path.parse().map_err(|_| format!("{path:?} is no number of a database: {EXAMPLE}"))?,
    };
    let mut login = RedisConnectionInfo::default().set_db(database);
    if let Some(user) = address.user() {
        login = login.set_username(user);
    }
    if let Some(password) = address.password()? {
        login = login.set_password(password);
    }
    let host = host.to_owned();
    if address.scheme() != "rediss" {
        return Ok(Client::open(ConnectionAddr::Tcp(host, port).into_connection_info()?.set_redis_settings(login))?);
    }
    let client_tls = match (address.file("ssl_certificate_file")?, address.file("ssl_key_file")?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => return Err("ssl_certificate_file and ssl_key_file belong together; give both or none".into()),
    };
    let certificates = TlsCertificates { client_tls, root_cert: address.file("ssl_ca_file")? };
    let place = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
    Ok(Client::build_with_tls(place.into_connection_info()?.set_redis_settings(login), certificates)?)
}

/// `SET key value PX ttl`.
fn set(key: String, value: &Bytes, ttl: Duration) -> Cmd {
    let millis = ttl.min(LONGEST).as_millis().max(1) as u64;
    let mut command = redis::cmd("SET");
    command.arg(key).arg(&value[..]).arg("PX").arg(millis);
    command
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let value: Option<Vec<u8>> = self.call(redis::cmd("GET").arg(self.key(key))).await?;
        Ok(value.map(Bytes::from))
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.call(&set(self.key(key), &value, ttl)).await
    }

    async fn put_if_absent(&self, key: &str, value: Bytes, ttl: Duration) -> Result<bool> {
        // Redis answers OK where it wrote, and nil where it did not.
        let written: Option<String> = self.call(set(self.key(key), &value, ttl).arg("NX")).await?;
        Ok(written.is_some())
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.call(redis::cmd("DEL").arg(self.key(key))).await
    }
}

#[cfg(test)]
mod tests;
