//! A response body that tells when it has ended, so that a stream counts until its last piece.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tracing::Span;

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All of it was sent.
    Complete,
    /// It broke.
    Broken,
    /// Its reader left before the end.
    Dropped,
}

/// What is told about a response.
pub(super) trait Watch: Send + 'static {
    /// Its trailers came.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// It has ended; told once.
    fn end(self, how: End);
}

/// A body under a watch. Its work happens inside a span.
pub(super) struct Watched<B: HttpBody, W: Watch> {
    inner: B,
    span: Span,
    watch: Option<W>,
}

impl<B: HttpBody, W: Watch> Watched<B, W> {
    pub(super) fn new(inner: B, span: Span, watch: W) -> Self {
        let mut watched = Self { inner, span, watch: Some(watch) };
        watched.end_if_complete();
        watched
    }

    fn end(&mut self, how: End) {
        if let Some(watch) = self.watch.take() {
            watch.end(how);
            self.span = Span::none();
        }
    }

    /// A server stops reading once the body says that it has no more.
    fn end_if_complete(&mut self) {
        if self.inner.is_end_stream() {
            self.end(End::Complete);
        }
    }
}

impl<B: HttpBody + Unpin, W: Watch + Unpin> HttpBody for Watched<B, W> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        let polled = {
            let _inside = this.span.enter();
            Pin::new(&mut this.inner).poll_frame(context)
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => this.end(End::Complete),
            Poll::Ready(Some(Err(_))) => this.end(End::Broken),
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(trailers), Some(watch)) = (frame.trailers_ref(), &mut this.watch) {
                    watch.trailers(trailers);
                    this.end(End::Complete);
                }
                this.end_if_complete();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: HttpBody, W: Watch> Drop for Watched<B, W> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
