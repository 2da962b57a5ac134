//! Rates, errors and durations as a recorder of the test's own gets them.

use axum::body::{Body, HttpBody};
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::ServiceExt;
use tracing::Span;

use super::body::{End, Watch, Watched};

struct Noted(std::sync::mpsc::Sender<End>);

impl Watch for Noted {
    fn trailers(&mut self, _: &HeaderMap) {}
    fn end(self, how: End) {
        self.0.send(how).unwrap();
    }
}

async fn yes() -> &'static str {
    "yes"
}

fn pieces(count: usize) -> Body {
    Body::from_stream(futures::stream::iter((0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"x")))))
}

#[tokio::test]
async fn a_stream_ends_with_its_last_piece_or_with_its_reader() {
    let (sender, ends) = std::sync::mpsc::channel();
    let mut whole = Body::new(Watched::new(pieces(3), Span::none(), Noted(sender.clone()))).into_data_stream();
    for _ in 0..3 {
        whole.next().await.unwrap().unwrap();
        assert!(ends.try_recv().is_err());
    }
    assert!(whole.next().await.is_none());
    assert_eq!(ends.try_recv().unwrap(), End::Complete);

    let mut left = Body::new(Watched::new(pieces(3), Span::none(), Noted(sender.clone()))).into_data_stream();
    left.next().await.unwrap().unwrap();
    drop(left);
    assert_eq!(ends.try_recv().unwrap(), End::Dropped);

    let empty = Watched::new(Body::empty(), Span::none(), Noted(sender));
    assert!(empty.is_end_stream());
    assert_eq!(ends.try_recv().unwrap(), End::Complete, "nobody reads a body that is empty");
}

#[test]
fn routes_are_labels_and_paths_are_not() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let router =
        axum::Router::new().route("/v1/answers/{id}", get(yes)).layer(axum::middleware::from_fn(super::observe));
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for path in ["/v1/answers/1", "/v1/answers/2", "/wp-login.php"] {
                let request = Request::builder().uri(path).body(Body::empty()).unwrap();
                let answer = router.clone().oneshot(request).await.unwrap();
                axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap();
            }
        });
    });
    let text = handle.render();
    let count = |labels: &str, value: u32| {
        let line = format!("tidemill_http_requests_total{{{labels}}} {value}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    };
    count(r#"method="GET",route="/v1/answers/{id}",code="200""#, 2);
    count(r#"method="GET",route="unknown",code="404""#, 1);
    assert!(!text.contains("wp-login"));
}
