//! Programs that others wrote drive the running daemon: the `openai` package, a generated Python client, `buf curl` by reflection.

use std::path::Path;
use std::process::Command;

use tidemill_sandbox::{Sandbox, corpus, mini_pipeline, run_to_end};

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_package_a_generated_client_and_buf_curl_drive_it() {
    let sandbox = Sandbox::start().await.unwrap();
    let texts = tempfile::tempdir().unwrap();
    let mut spec = mini_pipeline("code", &corpus(texts.path()).unwrap());
    // Their feedback must not start a second turn under their feet.
    spec.feedback = None;
    run_to_end(&sandbox.clients, spec).await.unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/run");
    let endpoints = sandbox.endpoints().clone();
    let status = tokio::task::spawn_blocking(move || {
        Command::new(script)
            .env("TIDEMILL_GRPC", endpoints.grpc.to_string())
            .env("TIDEMILL_HTTP", endpoints.http.to_string())
            .env("TIDEMILL_MODEL", "code")
            .status()
    })
    .await
    .unwrap()
    .unwrap();
    assert!(status.success(), "tests/clients/run ended with {status}");
    sandbox.stop().await.unwrap();
}
