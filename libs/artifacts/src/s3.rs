//! What only S3 needs: the URL, credentials, timeouts and retries.
//!
//! Small blobs, manifests and references are written by a put that succeeds only where nothing is (`If-None-Match: *`), which the server
//! must honour. Large blobs are written in parts; a second writer completes the same bytes under the same digest. Parts of a writer that
//! was killed are not seen by anybody, but are paid for: give the bucket a rule that aborts incomplete uploads.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tidemill_address::Address;

use crate::error::is_missing;
use crate::{Error, Result};

pub(crate) const EXAMPLE: &str = "s3://bucket/prefix?endpoint=https://host&region=us-east-1&credentials_file=/path";
const PARAMETERS: &[&str] = &["endpoint", "region", "credentials_file", "ssl_ca_file"];

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the server may say nothing, while it takes a part as well as while it sends one. A whole transfer may take as long as it needs.
const SILENCE: Duration = Duration::from_secs(30);
/// How often, and for how long, a request that the server failed is tried again.
const RETRIES: usize = 20;
const RETRYING: Duration = Duration::from_secs(15);

/// Opens a bucket, and looks whether it is there.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn ObjectStore>> {
    let unavailable = |reason: String| Error::Unavailable { url: tidemill_address::masked(url), reason };
    let store = build(url).map_err(|error| unavailable(error.to_string()))?;
    // Nothing has this name: the answer tells a missing object from a missing bucket and from wrong credentials.
    match store.get(&Key::from("bucket")).await {
        Ok(_) => Ok(store),
        Err(error) if is_missing(&error) => Ok(store),
        Err(error) => Err(Error::store(url, "the bucket", error)),
    }
}

fn build(url: &str) -> std::result::Result<Arc<dyn ObjectStore>, Box<dyn std::error::Error>> {
    let address = Address::parse(url, PARAMETERS, EXAMPLE)?;
    if address.host().is_empty() {
        return Err(format!("it names no bucket: {EXAMPLE}").into());
    }
    let mut builder = match address.file("credentials_file")? {
        // Not beside the environment's: a session token from there does not belong to these keys.
        Some(bytes) => {
            credentials(AmazonS3Builder::new(), &bytes).map_err(|reason| address.wrong("credentials_file", reason))?
        }
        None => AmazonS3Builder::from_env(),
    };
    builder = builder.with_bucket_name(address.host());
    if let Some(region) = address.get("region") {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = address.get("endpoint") {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    let mut client =
        ClientOptions::new().with_connect_timeout(CONNECT).with_read_timeout(SILENCE).with_timeout_disabled();
    if address.get("endpoint").is_some_and(|endpoint| endpoint.starts_with("http://")) {
        client = client.with_allow_http(true);
    }
    if let Some(pem) = address.file("ssl_ca_file")? {
        for certificate in Certificate::from_pem_bundle(&pem)? {
            client = client.with_root_certificate(certificate);
        }
    }
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRYING };
    let store = builder.with_client_options(client).with_retry(retry).build()?;
    match address.path().trim_matches('/') {
        "" => Ok(Arc::new(store)),
        prefix => Ok(Arc::new(PrefixStore::new(store, Key::parse(prefix)?))),
    }
}

/// Reads lines of `name=value`.
fn credentials(mut builder: AmazonS3Builder, bytes: &[u8]) -> std::result::Result<AmazonS3Builder, String> {
    let shape = "it should hold the lines access_key_id=… and secret_access_key=…, and may hold session_token=…";
    let text = std::str::from_utf8(bytes).map_err(|_| shape.to_owned())?;
    let (mut id, mut secret) = (false, false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        builder = match line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some(("access_key_id", value)) => {
                id = !value.is_empty();
                builder.with_access_key_id(value)
            }
            Some(("secret_access_key", value)) => {
                secret = !value.is_empty();
                builder.with_secret_access_key(value)
            }
            Some(("session_token", value)) => builder.with_token(value),
            _ => return Err(shape.to_owned()),
        };
    }
    if id && secret { Ok(builder) } else { Err(shape.to_owned()) }
}

#[cfg(test)]
mod tests;
