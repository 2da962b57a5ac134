//! A real Prometheus that scrapes every process and knows the chart's rules.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tidemill_faults::Server;

/// See the module; gone when dropped.
pub struct Alerts {
    _server: Server,
    url: String,
}

impl Alerts {
    /// Starts one that scrapes these admin listeners, each with the name of its service.
    pub async fn watch(admins: Vec<(&'static str, SocketAddr)>) -> Result<Self> {
        let server = tokio::task::spawn_blocking(|| Server::start("prometheus")).await?;
        let url = server.variable("TIDEMILL_TEST_PROMETHEUS");
        let target = |(service, address): (&str, SocketAddr)| json!({"targets": [address.to_string()], "labels": {"job": format!("tidemill-{service}")}});
        let targets: Vec<Value> = admins.into_iter().map(target).collect();
        std::fs::write(server.folder().join("targets.json"), serde_json::to_vec(&targets)?)?;
        let alerts = Self { _server: server, url };
        crate::eventually("the first scrape of every process", async || {
            let up = alerts.query("count(up{job=~\"tidemill-.*\"} == 1)").await.ok()?;
            (up == Some(targets.len() as f64)).then_some(())
        })
        .await?;
        Ok(alerts)
    }

    /// Alerts that fire now, by name, and by dependency where they name one: `TidemillDependencyFails artifacts`.
    pub async fn firing(&self) -> Result<BTreeSet<String>> {
        let body: Value = reqwest::get(format!("{}/api/v1/alerts", self.url)).await?.json().await?;
        let alerts = body["data"]["alerts"].as_array().context("Prometheus' alerts")?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let labels = firing.map(|alert| [&alert["labels"]["alertname"], &alert["labels"]["dependency"]]);
        Ok(labels
            .map(|labels| labels.iter().filter_map(|label| label.as_str()).collect::<Vec<_>>().join(" "))
            .collect())
    }

    /// The value of an expression that gives one, or none.
    pub async fn query(&self, expression: &str) -> Result<Option<f64>> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", expression)])?;
        let body: Value = reqwest::get(url).await?.json().await?;
        let value = &body["data"]["result"][0]["value"][1];
        Ok(value.as_str().map(str::parse).transpose()?)
    }
}
