use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::*;
use crate::transport::{Access, remote};

/// Answers with UNAVAILABLE, or after a while; says by its status which it is.
struct Replica {
    status: ServingStatus,
    pause: Duration,
    unavailable: bool,
}

#[tonic::async_trait]
impl Health for Replica {
    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        tokio::time::sleep(self.pause).await;
        if self.unavailable {
            return Err(Status::unavailable("this replica is stopping"));
        }
        Ok(tonic::Response::new(HealthCheckResponse { status: self.status.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

async fn start(
    replica: Replica,
    listener: TcpListener,
) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server =
        tonic::transport::Server::builder().add_service(HealthServer::new(replica)).serve_with_incoming_shutdown(
            crate::server::incoming::incoming(listener, None),
            stop.clone().cancelled_owned(),
        );
    (address, stop, tokio::spawn(async move { server.await.unwrap() }))
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn replica(status: ServingStatus) -> Replica {
    Replica { status, pause: Duration::ZERO, unavailable: false }
}

fn client(addresses: &[SocketAddr]) -> HealthClient<crate::transport::Channel> {
    let uris: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    HealthClient::new(remote(&uris.join(","), &Access::default()).unwrap())
}

async fn ask(client: &HealthClient<crate::transport::Channel>) -> Result<ServingStatus, Status> {
    client.clone().check(HealthCheckRequest::default()).await.map(|answer| answer.into_inner().status())
}

#[tokio::test]
async fn calls_are_shared_by_the_replicas() {
    let (one, ..) = start(replica(ServingStatus::Serving), listen().await).await;
    let (two, ..) = start(replica(ServingStatus::NotServing), listen().await).await;
    let client = client(&[one, two]);
    let mut counts = BTreeMap::new();
    for _ in 0..40 {
        *counts.entry(ask(&client).await.unwrap() as i32).or_insert(0) += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [20, 20], "in turn while none is busy");
}

#[tokio::test]
async fn a_busy_replica_gets_fewer_calls() {
    let slow = Replica { pause: Duration::from_secs(5), ..replica(ServingStatus::NotServing) };
    let (one, ..) = start(slow, listen().await).await;
    let (two, ..) = start(replica(ServingStatus::Serving), listen().await).await;
    let client = client(&[one, two]);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { ask(&client).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut quick = 0;
    while let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(500), calls.join_next()).await {
        assert_eq!(answer.unwrap().unwrap(), ServingStatus::Serving);
        quick += 1;
    }
    assert!(quick >= 18, "{quick} of 20 went to the replica that was free");
}

#[tokio::test]
async fn a_call_goes_on_to_a_replica_that_is_there() {
    let gone = listen().await.local_addr().unwrap();
    let stopping = Replica { unavailable: true, ..replica(ServingStatus::Serving) };
    let (stopping, ..) = start(stopping, listen().await).await;
    let (there, ..) = start(replica(ServingStatus::Serving), listen().await).await;
    let client = client(&[gone, stopping, there]);
    for _ in 0..20 {
        assert_eq!(ask(&client).await.unwrap(), ServingStatus::Serving);
    }
}

#[tokio::test]
async fn a_silent_replica_fails_one_call_in_time_and_then_rests() {
    // The kernel takes its connections, and nobody answers: so does a process that was stopped.
    let silent = listen().await;
    let (serving, ..) = start(replica(ServingStatus::Serving), listen().await).await;
    let client = client(&[silent.local_addr().unwrap(), serving]);
    let begun = std::time::Instant::now();
    let (one, other) = tokio::join!(ask(&client), ask(&client));
    assert!(one.is_ok() != other.is_ok(), "of two calls one goes to each: {one:?}, {other:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for _ in 0..10 {
        ask(&client).await.unwrap();
    }
}

#[tokio::test]
async fn where_no_replica_is_there_the_call_says_so() {
    let gone = listen().await.local_addr().unwrap();
    let status = ask(&client(&[gone])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&gone.to_string()), "{status}");
}

#[tokio::test]
async fn restarts_in_turn_fail_no_call() {
    let mut running = Vec::new();
    for _ in 0..2 {
        running.push(start(replica(ServingStatus::Serving), listen().await).await);
    }
    let addresses: Vec<SocketAddr> = running.iter().map(|(address, ..)| *address).collect();
    let client = client(&addresses);
    let done = CancellationToken::new();
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (client, done) = (client.clone(), done.clone());
        callers.spawn(async move {
            let mut calls = 0;
            while !done.is_cancelled() {
                ask(&client).await.unwrap();
                calls += 1;
            }
            calls
        });
    }
    for round in 0..10 {
        let (address, stop, served) = running.remove(0);
        stop.cancel();
        served.await.unwrap();
        // The port may rest for a moment; a replica comes back at its own address.
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        running.push(start(replica(ServingStatus::Serving), listener).await);
        tokio::time::sleep(REST).await;
        assert!(callers.try_join_next().is_none(), "a call failed in round {round}");
    }
    done.cancel();
    let calls: u32 = callers.join_all().await.into_iter().sum();
    assert!(calls > 100, "{calls} calls");
}

#[test]
fn a_wrong_address_is_named() {
    for (uris, part) in [
        ("127.0.0.1:7460", "is not an address"),
        ("https://registry:7460", "tls_ca_file"),
        ("http://one:1,", "is not an address"),
    ] {
        let error = remote(uris, &Access::default()).err().unwrap();
        assert!(error.contains(part), "{uris}: {error}");
    }
}
