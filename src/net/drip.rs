//! Cuts bodies that drip. A server that sends a byte now and then keeps a request busy for ever, and no idle timeout ends it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::ResponseBuilderExt;
use tokio::time::Instant;

use super::origin_text;
use crate::error::{Error, ErrorKind};
use crate::size::Size;

/// How long a server is waited for until it is looked at what it has sent meanwhile.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewest bytes that it must have sent by then: 1 KiB a second. A model of a gigabyte would take twelve days.
const FEWEST: u64 = 60 << 10;

/// The same answer, whose body ends in an error when it drips.
pub(super) fn cut(answer: reqwest::Response) -> reqwest::Response {
    let url = answer.url().clone();
    let host = origin_text(&url);
    let (parts, body) = http::Response::from(answer).into_parts();
    let body = Dripping { body, host, waiting: None, waited: Duration::ZERO, brought: 0 };
    // Only by its extensions does an answer tell its URL.
    let mut named = http::response::Builder::new().url(url);
    let mut answer = http::Response::from_parts(parts, reqwest::Body::wrap(body));
    if let Some(extensions) = named.extensions_mut() {
        answer.extensions_mut().extend(std::mem::take(extensions));
    }
    answer.into()
}

/// A body that is watched. What counts is the time that the server is waited for: a reader may take its time.
struct Dripping {
    body: reqwest::Body,
    host: String,
    waiting: Option<Instant>,
    waited: Duration,
    brought: u64,
}

impl Dripping {
    fn check(&mut self) -> Result<(), Error> {
        if self.waited < WINDOW {
            return Ok(());
        }
        if self.brought < FEWEST {
            let (host, brought, seconds) = (&self.host, Size(self.brought), self.waited.as_secs());
            let text = format!("{host} has sent no more than {brought} in {seconds} s");
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        (self.waited, self.brought) = (Duration::ZERO, 0);
        Ok(())
    }
}

impl Body for Dripping {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) else {
            self.waiting.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        let Some(Ok(frame)) = next else { return Poll::Ready(next.map(|failed| failed.map_err(Into::into))) };
        self.brought += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        Poll::Ready(Some(self.check().map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::net::{network_error, read_all};

    /// A body of so many pieces, each of which comes so many seconds after the one before.
    fn answer(pieces: usize, size: usize, seconds: u64) -> reqwest::Response {
        let piece = move |number| async move {
            if number == pieces {
                return None;
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; size])), number + 1))
        };
        let body = reqwest::Body::wrap_stream(stream::unfold(0, piece));
        let url = url::Url::parse("https://server.example:8443/model?secret=CANARY").unwrap();
        cut(http::response::Builder::new().status(206).url(url).header("etag", "\"1\"").body(body).unwrap().into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_cut() {
        for (pieces, size, seconds, is_cut) in [
            (1000, 1, 20, true),
            (1000, 19 << 10, 29, true),
            (1000, 20 << 10, 29, false),
            // Too short to be told from one that has come to a rest.
            (2, 1, 29, false),
            (100, 1 << 10, 0, false),
        ] {
            let case = (pieces, size, seconds);
            let began = Instant::now();
            match read_all(answer(pieces, size, seconds), usize::MAX).await {
                Ok(body) => assert_eq!((body.len(), is_cut), (pieces * size, false), "{case:?}"),
                Err(error) => {
                    assert!(is_cut && error.kind() == ErrorKind::Unavailable, "{case:?}: {error:?}");
                    assert!(error.report().contains("https://server.example:8443 has sent no more than"), "{error:?}");
                    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
                    assert!(began.elapsed() < 2 * WINDOW, "{case:?}");
                }
            }
        }
    }

    /// Whoever reads slowly keeps nobody waiting but himself.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_the_servers_fault() {
        let mut answer = answer(10, 1, 1);
        let mut read = 0;
        while let Some(piece) = answer.chunk().await.map_err(|error| network_error("server", error)).unwrap() {
            read += piece.len();
            tokio::time::sleep(WINDOW).await;
        }
        assert_eq!(read, 10);
    }

    #[tokio::test]
    async fn all_else_of_the_answer_stays() {
        let answer = answer(0, 0, 0);
        assert_eq!((answer.status().as_u16(), answer.url().path()), (206, "/model"));
        assert_eq!(answer.headers()["etag"], "\"1\"");
        let whole = http::Response::builder().body(reqwest::Body::from("text")).unwrap();
        assert_eq!(cut(whole.into()).content_length(), Some(4));
    }
}
