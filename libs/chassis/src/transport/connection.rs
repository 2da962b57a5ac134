//! One connection to one address: TCP, with TLS where certificates are given; made when first used, and again after a loss.

use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::BoxError;

use crate::tls::ClientTls;

/// How long the other side may take to accept a connection, handshake included.
const CONNECT: Duration = Duration::from_secs(5);

/// How often the other side is asked whether it is there, and how long it may take to say so: a process that was stopped, or a machine
/// that is cut off, closes no connection.
const ASK: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(5);

/// A connection could not be made, so nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be reached: {reason}")]
pub(super) struct Unreachable {
    address: SocketAddr,
    reason: String,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A channel to an address; `host` is the name that the certificate must have.
pub(super) fn channel(address: SocketAddr, host: &str, tls: Option<ClientTls>) -> Channel {
    // TLS is this connector's matter, so tonic sees plain HTTP.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a URI")
        .http2_keep_alive_interval(ASK)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true);
    let host = host.to_owned();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_uri: http::Uri| {
        let (host, tls) = (host.clone(), tls.clone());
        async move {
            let connected = tokio::time::timeout(CONNECT, connect(address, &host, tls.as_ref())).await;
            let reason = match connected {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(reason)) => reason,
                Err(_) => format!("no connection within {} s", CONNECT.as_secs()),
            };
            Err(BoxError::from(Unreachable { address, reason }))
        }
    }))
}

async fn connect(address: SocketAddr, host: &str, tls: Option<&ClientTls>) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    match tls {
        Some(tls) => Ok(Box::new(tls.connect(host, stream).await?)),
        None => Ok(Box::new(stream)),
    }
}

/// Whether a call certainly never reached a handler, so that another replica may have it: there was no connection, or the server
/// said that it takes no more calls on this one (GOAWAY, REFUSED_STREAM).
pub(super) fn was_never_taken(error: &BoxError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(cause) = source {
        if cause.is::<Unreachable>() {
            return true;
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>()
            && error.is_canceled()
        {
            return true;
        }
        if let Some(error) = cause.downcast_ref::<h2::Error>()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
        {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Whether a call failed because the other side said nothing any more. It may have seen the call, or see it yet.
pub(super) fn went_silent(error: &BoxError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(cause) = source {
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
            return true;
        }
        source = cause.source();
    }
    false
}
