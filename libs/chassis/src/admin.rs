//! The listener for operators: `/metrics`, `/livez`, `/readyz`. Plain HTTP without a key: it tells numbers, never content.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::auth::ApiKeys;
use crate::metrics::{self, Recorded};
use crate::server::Error;

/// An open listener, not yet answering.
pub(crate) struct Admin {
    listener: TcpListener,
    recorded: Recorded,
}

impl Admin {
    /// Opens the listener and starts to record metrics; nothing for an empty address.
    pub(crate) async fn bind(address: &str, keys: &ApiKeys) -> Result<Option<Self>, Error> {
        const FIELD: &str = "server.admin_address";
        if address.is_empty() {
            return Ok(None);
        }
        let address: SocketAddr = address.parse().map_err(|_| {
            Error::Setting(format!("{FIELD} = {address:?} should be an address such as 127.0.0.1:9464, or empty"))
        })?;
        keys.check_address(FIELD, address).map_err(Error::Setting)?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| Error::Bind { field: FIELD, address, reason: error.to_string() })?;
        let recorded = metrics::install().map_err(|reason| Error::Setting(format!("{FIELD}: {reason}")))?;
        Ok(Some(Self { listener, recorded }))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound listener has an address")
    }

    /// Answers until the switch is dropped, also while the process drains. The switch tells whether it is ready.
    pub(crate) fn serve(self) -> Ready {
        let stop = CancellationToken::new();
        let end = stop.clone().drop_guard();
        let ready = watch::Sender::new(false);
        let router = Router::new()
            .route("/livez", get(live))
            .route("/readyz", get(readiness).with_state(ready.subscribe()))
            .route("/metrics", get(scrape).with_state(self.recorded));
        tokio::spawn(async move {
            let served = axum::serve(self.listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin listener failed");
            }
        });
        Ready { ready, _end: end }
    }
}

/// Whether the process takes work.
pub(crate) struct Ready {
    ready: watch::Sender<bool>,
    _end: DropGuard,
}

impl Ready {
    /// Says so, or the contrary.
    pub(crate) fn set(&self, ready: bool) {
        self.ready.send_replace(ready);
        ::metrics::gauge!("tidemill_ready").set(if ready { 1.0 } else { 0.0 });
    }
}

/// An answer is the proof.
async fn live() -> &'static str {
    "ok\n"
}

async fn readiness(State(ready): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *ready.borrow() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn scrape(State(recorded): State<Recorded>) -> ([(http::HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorded.render())
}
