//! The health of services that this process only forwards: what they say of themselves.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Told;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use crate::transport::Channel;

/// How often they are asked, and how long an answer may take.
const ASK: Duration = Duration::from_secs(2);

/// Keeps the health of each up to date, until the set is dropped.
pub(super) fn follow(health: &HealthReporter, services: Vec<(&'static str, Channel)>) -> JoinSet<()> {
    services.into_iter().map(|(full_name, channel)| one(health.clone(), full_name, channel)).collect()
}

async fn one(health: HealthReporter, full_name: &'static str, channel: Channel) {
    loop {
        let request = HealthCheckRequest { service: full_name.to_owned() };
        let mut client = HealthClient::new(channel.clone());
        let answer = tokio::time::timeout(ASK, client.check(request)).await;
        let serves = matches!(answer, Ok(Ok(answer)) if answer.get_ref().status() == Told::Serving);
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(full_name, status).await;
        tokio::time::sleep(ASK).await;
    }
}
