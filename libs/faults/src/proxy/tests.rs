//! Each fault is seen by a client of a server that echoes.

use std::io::ErrorKind;
use std::time::Instant;

use super::*;

const SOON: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_secs(10);

/// A proxy before a server that sends back what it gets.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    Proxy::start(address).await
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn ask(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}

#[tokio::test]
async fn without_a_fault_bytes_and_ends_go_through() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "hello").await.unwrap(), "hello");
    stream.shutdown().await.unwrap();
    assert_eq!(within(LATE, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_delay_makes_answers_late() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Delay(SOON / 2));
    let begin = Instant::now();
    assert_eq!(ask(&mut stream, "hello").await.unwrap(), "hello");
    assert!(begin.elapsed() >= SOON, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn what_was_stalled_comes_when_the_fault_ends() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Stall);
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    assert!(within(SOON, stream.read_exact(&mut answer)).await.is_none());
    proxy.heal();
    within(LATE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn half_open_nothing_comes_and_who_speaks_afterwards_is_reset() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::HalfOpen);
    assert!(within(SOON, ask(&mut stream, "hello")).await.is_none());
    proxy.heal();
    let error = within(LATE, ask(&mut stream, "again")).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(ask(&mut connect(&proxy).await, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_reset_ends_connections_and_new_ones() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, "hello").await.unwrap();
    proxy.set(Fault::Reset);
    let error = within(LATE, stream.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    ask(&mut connect(&proxy).await, "hello").await.unwrap_err();
    proxy.heal();
    assert_eq!(ask(&mut connect(&proxy).await, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_connection_is_cut_after_so_many_bytes() {
    let proxy = echo().await;
    proxy.set(Fault::Cut(8));
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "hello").await.unwrap(), "hello");
    stream.write_all(b"again").await.unwrap();
    let mut rest = Vec::new();
    within(LATE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"aga");
}

#[tokio::test]
async fn an_answer_is_lost_once() {
    let proxy = echo().await;
    proxy.set(Fault::LoseAnswer(b"COMMIT"));
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "BEGIN").await.unwrap(), "BEGIN");
    let error = within(LATE, ask(&mut stream, "a COMMIT")).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.fault(), Fault::None);
    assert_eq!(ask(&mut connect(&proxy).await, "COMMIT").await.unwrap(), "COMMIT");
}

#[tokio::test]
async fn so_many_requests_are_answered_with_500() {
    let proxy = echo().await;
    proxy.set(Fault::Http500(2));
    for _ in 0..2 {
        let mut stream = connect(&proxy).await;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        within(LATE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    }
    assert_eq!(ask(&mut connect(&proxy).await, "hello").await.unwrap(), "hello");
}
