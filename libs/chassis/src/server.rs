//! Serves what services are made of: gRPC, HTTP and background tasks, with health, reflection and a drain that ends in time.

mod forwarded;
pub(crate) mod incoming;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::admin::Admin;
use crate::auth::{ApiKeys, RequireKey};
use crate::observe;
use crate::tls::ServerTls;
use crate::transport::{self, Channel};

/// Section `[server]`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where gRPC listens.
    pub grpc_address: String,
    /// Where HTTP listens, if a service has any.
    pub http_address: String,
    /// Where operators ask for metrics and probes, or empty.
    pub admin_address: String,
    /// File with API keys, or empty.
    pub api_keys_file: String,
    /// Certificate of the gRPC listener in PEM, or empty for plain HTTP/2.
    pub tls_certificate_file: String,
    /// Its key.
    pub tls_key_file: String,
    /// Who signs callers' certificates; empty asks callers for none.
    pub tls_client_ca_file: String,
    /// Seconds between NOT_SERVING and the end of accepting, for balancers to notice.
    pub drain_delay_seconds: u64,
    /// Seconds for requests in flight after that.
    pub shutdown_grace_seconds: u64,
    /// Largest HTTP body accepted, in bytes.
    pub max_message_bytes: usize,
}

/// What a service's `build` returns: plain data, nothing running yet.
pub struct Service {
    name: &'static str,
    grpc: Vec<Grpc>,
    forwarded: Vec<(&'static str, Channel)>,
    http: Option<axum::Router>,
    ready: Option<watch::Receiver<bool>>,
    tasks: Vec<Task>,
}

struct Grpc {
    full_name: &'static str,
    add: Arc<dyn Fn(Routes) -> Routes + Send + Sync>,
}

impl Service {
    /// A service without any face; `name` is its folder's.
    pub fn new(name: &'static str) -> Self {
        Self { name, grpc: Vec::new(), forwarded: Vec::new(), http: None, ready: None, tasks: Vec::new() }
    }

    /// Adds a generated gRPC server.
    #[must_use]
    pub fn grpc<S>(mut self, server: S) -> Self
    where
        S: tower::Service<http::Request<tonic::body::Body>, Error = std::convert::Infallible>
            + tonic::server::NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        let add = Arc::new(move |routes: Routes| routes.add_service(server.clone()));
        self.grpc.push(Grpc { full_name: S::NAME, add });
        self
    }

    /// Hands calls of another gRPC service, by its full name, on to where a channel leads.
    #[must_use]
    pub fn forward(mut self, full_name: &'static str, channel: Channel) -> Self {
        self.forwarded.push((full_name, channel));
        self
    }

    /// Adds HTTP routes.
    #[must_use]
    pub fn http(mut self, router: axum::Router) -> Self {
        self.http = Some(router);
        self
    }

    /// Keeps health at NOT_SERVING until this turns true: the process runs, and callers should not come yet.
    #[must_use]
    pub fn ready_when(mut self, ready: watch::Receiver<bool>) -> Self {
        self.ready = Some(ready);
        self
    }

    /// Adds background work.
    #[must_use]
    pub fn task(mut self, task: Task) -> Self {
        self.tasks.push(task);
        self
    }

    /// Whether it has HTTP routes.
    pub fn has_http(&self) -> bool {
        self.http.is_some()
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A channel to its gRPC servers in this process; nothing if it has none.
    pub fn local_channel(&self) -> Option<Channel> {
        let routes = self.grpc.iter().fold(Routes::default(), |routes, grpc| (grpc.add)(routes));
        (!self.grpc.is_empty()).then(|| transport::local(routes))
    }
}

/// Background work: begins after the listeners are open, and ends soon after its token is cancelled.
pub struct Task {
    name: &'static str,
    run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Task {
    /// Work from a function of the stop token.
    pub fn new<F, R>(name: &'static str, run: F) -> Self
    where
        F: FnOnce(CancellationToken) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self { name, run: Box::new(move |token| Box::pin(run(token))) }
    }
}

/// What can go wrong at start, or while serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is not acceptable.
    #[error("{0}")]
    Setting(String),
    /// The address is taken or not ours.
    #[error(
        "{field} = {address} cannot be opened: {reason}; stop what listens there, or set {field} to another port (0 picks a free one)"
    )]
    Bind {
        /// The setting.
        field: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The system's reason.
        reason: String,
    },
    /// A background task died.
    #[error("background task {0} failed; the log has the cause")]
    Task(String),
    /// A listener died.
    #[error("listener failed: {0}")]
    Listener(String),
}

/// Open listeners, not yet answering.
pub struct Bound {
    grpc: TcpListener,
    http: Option<TcpListener>,
    admin: Option<Admin>,
    keys: ApiKeys,
    tls: Option<ServerTls>,
    settings: Server,
}

impl Server {
    fn tls(&self) -> Result<Option<ServerTls>, String> {
        let path = |text: &'_ String| (!text.is_empty()).then(|| Path::new(text).to_owned());
        match (path(&self.tls_certificate_file), path(&self.tls_key_file), path(&self.tls_client_ca_file)) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), ca) => ServerTls::new(&certificate, &key, ca.as_deref()).map(Some),
            _ => Err("server.tls_certificate_file and server.tls_key_file are set together, or neither; \
                      server.tls_client_ca_file needs both"
                .to_owned()),
        }
    }
}

/// Opens the listeners.
///
/// # Errors
/// A port that is taken, an address that others can reach without API keys, or certificates that cannot be used.
pub async fn bind(settings: &Server, with_http: bool) -> Result<Bound, Error> {
    let keys = ApiKeys::read(&settings.api_keys_file).map_err(Error::Setting)?;
    let tls = settings.tls().map_err(Error::Setting)?;
    let open = async |field: &'static str, text: &str| {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| Error::Setting(format!("{field} = {text:?} should be an address such as 127.0.0.1:7460")))?;
        keys.check_address(field, address).map_err(Error::Setting)?;
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| Error::Bind { field, address, reason: error.to_string() })
    };
    let grpc = open("server.grpc_address", &settings.grpc_address).await?;
    let http = if with_http { Some(open("server.http_address", &settings.http_address).await?) } else { None };
    let admin = Admin::bind(&settings.admin_address, &keys).await?;
    Ok(Bound { grpc, http, admin, keys, tls, settings: settings.clone() })
}

impl Bound {
    /// Where gRPC listens.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.local_addr().expect("a bound listener has an address")
    }

    /// Where HTTP listens.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.local_addr().expect("a bound listener has an address"))
    }

    /// Where operators ask, if anywhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Serves until `stop` is cancelled, then drains: health says NOT_SERVING and tasks are told to stop; after the drain delay
    /// nothing new is accepted, and requests in flight finish within the grace; what has not ended by then is dropped.
    ///
    /// # Errors
    /// A listener or a task that died by itself.
    pub async fn serve(self, services: Vec<Service>, stop: CancellationToken) -> Result<(), Error> {
        let grace = Duration::from_secs(self.settings.shutdown_grace_seconds);
        let ready = self.admin.map(Admin::serve);
        let (health, health_server) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tidemill_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| Error::Listener(error.to_string()))?;
        let mut routes = Routes::default().add_service(health_server).add_service(reflection);
        let mut router = axum::Router::new();
        let mut tasks = JoinSet::new();
        let mut names = Vec::new();
        let mut forwarded = Vec::new();
        let mut readiness = Vec::new();
        for service in services {
            readiness.extend(service.ready);
            for grpc in service.grpc {
                routes = (grpc.add)(routes);
                names.push(grpc.full_name);
            }
            for (full_name, channel) in service.forwarded {
                routes = transport::forward(routes, full_name, channel.clone());
                forwarded.push((full_name, channel));
            }
            if let Some(http) = service.http {
                router = router.merge(http);
            }
            for task in service.tasks {
                let work = (task.run)(stop.child_token());
                tasks.spawn(async move {
                    work.await;
                    task.name
                });
            }
        }
        names.push("");
        for name in &names {
            health.set_service_status(*name, ServingStatus::NotServing).await;
        }

        let followed = forwarded::follow(&health, forwarded);

        // The listeners outlive `stop` by a moment: callers first learn from health that nothing new should come here.
        let close = CancellationToken::new();
        let mut listeners = JoinSet::new();
        let closed = close.clone();
        let incoming = incoming::incoming(self.grpc, self.tls);
        let server = tonic::transport::Server::builder()
            .layer(observe::Observe)
            .layer(RequireKey(self.keys.clone()))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, closed.cancelled_owned());
        listeners.spawn(async move { server.await.map_err(|error| error.to_string()) });
        let draining = Arc::new(AtomicBool::new(false));
        if let Some(listener) = self.http {
            let router = router
                .layer(middleware::from_fn_with_state(draining.clone(), close_when_draining))
                .layer(axum::extract::DefaultBodyLimit::max(self.settings.max_message_bytes))
                .layer(middleware::from_fn_with_state(self.keys, require_key))
                .layer(middleware::from_fn(observe::observe));
            let server = axum::serve(listener, router).with_graceful_shutdown(close.clone().cancelled_owned());
            listeners.spawn(async move { server.await.map_err(|error| error.to_string()) });
        }

        let greet = async {
            for ready in &mut readiness {
                // A service that went away without being ready ends the process by its task.
                let _never = ready.wait_for(|ready| *ready).await;
            }
            for name in &names {
                health.set_service_status(*name, ServingStatus::Serving).await;
            }
            ready.iter().for_each(|ready| ready.set(true));
            std::future::pending::<()>().await;
        };
        let early = tokio::select! {
            () = greet => unreachable!("greeting never ends"),
            () = stop.cancelled() => Ok(()),
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => match ended {
                _ if stop.is_cancelled() => Ok(()),
                Ok(name) => Err(Error::Task(name.to_owned())),
                Err(panic) => Err(Error::Task(panic.to_string())),
            },
            Some(ended) = listeners.join_next() => Err(Error::Listener(format!("{ended:?}"))),
        };
        stop.cancel();
        ready.iter().for_each(|ready| ready.set(false));
        drop(followed);
        for name in names {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        draining.store(true, Ordering::Relaxed);
        if early.is_ok() {
            tokio::time::sleep(Duration::from_secs(self.settings.drain_delay_seconds)).await;
        }
        close.cancel();
        let drained = async {
            while listeners.join_next().await.is_some() {}
            while tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!(
                grace_seconds = grace.as_secs(),
                "work in flight did not end within the grace and is dropped"
            );
        }
        early
    }
}

/// While draining, an answer over HTTP/1.1 asks the client to come on a new connection, which goes to a process that stays.
async fn close_when_draining(
    axum::extract::State(draining): axum::extract::State<Arc<AtomicBool>>,
    request: Request,
    next: Next,
) -> axum::response::Response {
    let mut response = next.run(request).await;
    if draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    response
}

async fn require_key(
    axum::extract::State(keys): axum::extract::State<ApiKeys>,
    request: Request,
    next: Next,
) -> axum::response::Response {
    if keys.admit(&request) {
        return next.run(request).await;
    }
    let body = serde_json::json!({"error": {
        "message": "an API key is required: send it as `Authorization: Bearer <key>`",
        "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
    }});
    (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response()
}
