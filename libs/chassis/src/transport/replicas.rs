//! The replicas of one service, as a caller sees them: which there are, how busy each is, and which one gets a call.
//!
//! The caller balances and not the network, because one HTTP/2 connection through a Kubernetes Service stays with one pod for good.
//! A call that no handler has seen, and one answered with UNAVAILABLE, goes on to another replica (AIP-194).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{BoxError, ServiceExt};

use super::connection::{channel, was_never_taken, went_silent};
use crate::tls::ClientTls;

/// How long names stay resolved; pods come and go.
const RESOLVED: Duration = Duration::from_secs(2);
/// How long a replica that could not be reached gets no calls, while others can have them.
const REST: Duration = Duration::from_millis(500);
/// As [`REST`], for one that takes connections and says nothing: each try costs a caller ten seconds.
const LONG_REST: Duration = Duration::from_secs(20);
/// Replicas that one call tries at most.
const TRIES: usize = 4;
/// Largest request that is kept for another try.
const LARGEST: usize = 64 << 20;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Replicas(Arc<Shared>);

struct Shared {
    hosts: Vec<(String, u16)>,
    tls: Option<ClientTls>,
    known: Mutex<Known>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    replicas: BTreeMap<SocketAddr, Arc<Replica>>,
    resolved: Option<Instant>,
}

struct Replica {
    channel: Channel,
    in_flight: AtomicUsize,
    rests_until: Mutex<Option<Instant>>,
}

/// One call in flight, until its last byte.
struct InFlight(Arc<Replica>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Replicas {
    pub(super) fn new(uris: &str, tls: Option<ClientTls>) -> Result<Self, String> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let host = |text: &str| {
            let example = format!("{text:?} is not an address such as {scheme}://127.0.0.1:7460");
            let uri: Uri = text.trim().parse().map_err(|error| format!("{example}: {error}"))?;
            match (uri.scheme_str(), uri.host()) {
                (Some(found), Some(host)) if found == scheme => {
                    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
                    Ok((host.trim_matches(['[', ']']).to_owned(), port))
                }
                (Some("http"), _) => {
                    Err(format!("{text:?} should begin with https://, as TLS certificates are configured"))
                }
                (Some("https"), _) => Err(format!("{text:?} needs TLS certificates: set services.tls_ca_file")),
                _ => Err(example),
            }
        };
        let hosts = uris.split(',').map(host).collect::<Result<_, String>>()?;
        Ok(Self(Arc::new(Shared { hosts, tls, known: Mutex::default(), turn: AtomicUsize::new(0) })))
    }

    /// Sends a call to the least busy replica, and on to another where that may help.
    pub(super) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        // Every call of this API has one message as its request; kept, it can be sent again.
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut tried = Vec::new();
        loop {
            let replicas = self.resolve().await?;
            let (address, replica) = self.pick(&replicas, &tried);
            tried.push(address);
            let mut request = Request::new(Body::new(Full::new(body.clone())));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.version_mut() = parts.version;
            *request.headers_mut() = parts.headers.clone();
            let last = tried.len() >= TRIES || replicas.keys().all(|known| tried.contains(known));
            match replica.call(request).await {
                Ok(response) if last || !is_unavailable(&response) => return Ok(response),
                Err(error) if last || !was_never_taken(&error) => return Err(error),
                Ok(_) => {}
                Err(error) => tracing::debug!(%address, error = %error, "the call goes to another replica"),
            }
        }
    }

    /// The replicas there are now. Names are looked up again from time to time; where that fails, what was known stays.
    async fn resolve(&self) -> Result<BTreeMap<SocketAddr, Arc<Replica>>, BoxError> {
        let fresh = |known: &Known| known.resolved.is_some_and(|at| at.elapsed() < RESOLVED);
        {
            let known = self.0.known.lock().expect("no holder of this lock panics");
            if fresh(&known) {
                return Ok(known.replicas.clone());
            }
        }
        let mut found = Vec::new();
        let mut failure = None;
        for (host, port) in &self.0.hosts {
            match tokio::net::lookup_host((host.as_str(), *port)).await {
                Ok(addresses) => found.extend(addresses.map(|address| (address, host))),
                Err(error) => failure = Some(format!("{host} cannot be resolved: {error}")),
            }
        }
        let mut known = self.0.known.lock().expect("no holder of this lock panics");
        known.resolved = Some(Instant::now());
        match failure {
            Some(failure) if found.is_empty() && known.replicas.is_empty() => return Err(failure.into()),
            Some(failure) => tracing::warn!(failure, "some replicas are known from before only"),
            None => known.replicas.retain(|address, _| found.iter().any(|(other, _)| other == address)),
        }
        for (address, host) in found {
            known.replicas.entry(address).or_insert_with(|| Arc::new(Replica::new(address, host, self.0.tls.clone())));
        }
        match known.replicas.is_empty() {
            true => Err("the name of the service resolves to no address".into()),
            false => Ok(known.replicas.clone()),
        }
    }

    /// The least busy of those not tried yet, rather one that was reached lately; in turn where several are equal.
    fn pick(&self, replicas: &BTreeMap<SocketAddr, Arc<Replica>>, tried: &[SocketAddr]) -> (SocketAddr, Arc<Replica>) {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let count = replicas.len();
        let best = replicas.iter().enumerate().min_by_key(|(index, (address, replica))| {
            let place = (index + turn) % count;
            (tried.contains(address), replica.rests(), replica.in_flight.load(Ordering::Relaxed), place)
        });
        let (_, (address, replica)) = best.expect("resolve gives at least one");
        (*address, replica.clone())
    }
}

impl Replica {
    fn new(address: SocketAddr, host: &str, tls: Option<ClientTls>) -> Self {
        let channel = channel(address, host, tls);
        Self { channel, in_flight: AtomicUsize::new(0), rests_until: Mutex::new(None) }
    }

    fn rests(&self) -> bool {
        let until = *self.rests_until.lock().expect("no holder of this lock panics");
        until.is_some_and(|until| Instant::now() < until)
    }

    async fn call(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let in_flight = InFlight(self.clone());
        match self.channel.clone().oneshot(request).await {
            Ok(response) => Ok(response.map(|body| {
                // The call is in flight until its last byte, which for a stream of tokens is what counts.
                Body::new(body.map_frame(move |frame| {
                    let _until_dropped = &in_flight;
                    frame
                }))
            })),
            Err(error) => {
                let error = BoxError::from(error);
                let rest = if went_silent(&error) { Some(LONG_REST) } else { was_never_taken(&error).then_some(REST) };
                if let Some(rest) = rest {
                    *self.rests_until.lock().expect("no holder of this lock panics") = Some(Instant::now() + rest);
                }
                Err(error)
            }
        }
    }
}

/// Whether an answer says, without any message before it, that another replica should be asked.
fn is_unavailable(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::Unavailable)
}

#[cfg(test)]
mod tests;
