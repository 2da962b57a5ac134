//! A TCP proxy that fails as networks do, on command.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to connections, those that there are and new ones alike.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing: bytes go through.
    None,
    /// Each chunk of bytes comes later by this much.
    Delay(Duration),
    /// Bytes wait until the fault ends; then they come.
    Stall,
    /// Bytes vanish, and no side learns that the other is gone; when the fault ends, who still speaks on such a connection is reset.
    HalfOpen,
    /// Connections are reset.
    Reset,
    /// Each connection is closed after it has brought so many bytes to the client.
    Cut(usize),
    /// The next time a client sends these bytes, the server gets them, but its answer is lost: the connection is reset instead.
    LoseAnswer(&'static [u8]),
    /// So many requests of HTTP, each on a connection of its own, are answered with status 500, and none of them reaches the server.
    Http500(usize),
}

/// A proxy on loopback; it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    /// How many connections there are.
    open: watch::Sender<usize>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own, for a server.
    pub async fn start(server: SocketAddr) -> Proxy {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), server).await
    }

    /// Listens where the server sends its clients, as Kafka does.
    pub async fn start_at(address: SocketAddr, server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(address).await.expect("a port on loopback");
        let address = listener.local_addr().expect("the port's address");
        let fault = watch::Sender::new(Fault::None);
        let open = watch::Sender::new(0);
        let listening = tokio::spawn(listen(listener, server, fault.clone(), open.clone()));
        Proxy { address, fault, open, listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a fault; the one before ends.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Resets the connections that there are, then begins a fault: so that new ones meet it, and none that was kept alive.
    pub async fn set_anew(&self, fault: Fault) {
        self.set(Fault::Reset);
        self.open.subscribe().wait_for(|open| *open == 0).await.expect("the proxy holds the count");
        self.set(fault);
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// What is the matter at the moment: some faults end by themselves.
    pub fn fault(&self) -> Fault {
        self.fault.borrow().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, server: SocketAddr, fault: watch::Sender<Fault>, open: watch::Sender<usize>) {
    // Connections end with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (fault, open) = (fault.clone(), open.clone());
        open.send_modify(|open| *open += 1);
        connections.spawn(async move {
            connection(client, server, fault).await;
            open.send_modify(|open| *open -= 1);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// How a connection ends.
enum End {
    Reset,
    Cut,
}

async fn connection(client: TcpStream, server: SocketAddr, fault: watch::Sender<Fault>) {
    if *fault.borrow() == Fault::Reset {
        return reset(&client);
    }
    if takes_one(&fault) {
        return answer_500(client).await;
    }
    let Ok(server) = TcpStream::connect(server).await else { return reset(&client) };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let doomed = watch::Sender::new(false);
    let mut up = Pump { fault: fault.subscribe(), doomed: doomed.clone(), brought: 0, lost: false };
    let mut down = Pump { fault: fault.subscribe(), doomed, brought: 0, lost: false };
    let ended = {
        let up = up.run(&mut from_client, &mut to_server, Way::Up(&fault));
        let down = down.run(&mut from_server, &mut to_client, Way::Down);
        tokio::try_join!(up, down)
    };
    if let Err(End::Reset) = ended {
        reset(from_client.as_ref());
        reset(from_server.as_ref());
        // Dropped, these would first say a friendly end.
        to_client.forget();
        to_server.forget();
    }
}

/// Makes the end of a connection sudden: the other side is told that it is reset.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().expect("the option of a socket");
}

/// Takes one from the count of [`Fault::Http500`], if that is the fault.
fn takes_one(fault: &watch::Sender<Fault>) -> bool {
    fault.send_if_modified(|fault| match fault {
        Fault::Http500(1) => {
            *fault = Fault::None;
            true
        }
        Fault::Http500(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    })
}

async fn answer_500(mut client: TcpStream) {
    let mut request = [0; 64 * 1024];
    // A request has come when nothing more comes; bytes left unread would turn the answer into a reset.
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_millis(100), client.read(&mut request)).await {}
    let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // The client may have gone away.
    let _ = client.write_all(answer).await;
}

/// Which way bytes go.
enum Way<'a> {
    Up(&'a watch::Sender<Fault>),
    Down,
}

/// One direction of a connection.
struct Pump {
    fault: watch::Receiver<Fault>,
    /// Whether the next answer is to be lost.
    doomed: watch::Sender<bool>,
    brought: usize,
    /// Whether bytes have vanished: then the connection cannot be used again.
    lost: bool,
}

impl Pump {
    async fn run(&mut self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, way: Way<'_>) -> Result<(), End> {
        let mut buffer = vec![0; 64 * 1024];
        let mut resets = self.fault.clone();
        loop {
            let count = tokio::select! {
                count = from.read(&mut buffer) => count.map_err(|_| End::Reset)?,
                () = is_reset(&mut resets) => return Err(End::Reset),
            };
            if count == 0 {
                // The other direction may go on. That it was closed meanwhile changes nothing.
                let _ = to.shutdown().await;
                return Ok(());
            }
            self.bring(&buffer[..count], to, &way).await?;
        }
    }

    async fn bring(&mut self, mut bytes: &[u8], to: &mut OwnedWriteHalf, way: &Way<'_>) -> Result<(), End> {
        if matches!(way, Way::Down) && *self.doomed.borrow() {
            return Err(End::Reset);
        }
        let mut cut = false;
        loop {
            let fault = self.fault.borrow_and_update().clone();
            match fault {
                Fault::Reset => return Err(End::Reset),
                Fault::HalfOpen => {
                    self.lost = true;
                    return Ok(());
                }
                _ if self.lost => return Err(End::Reset),
                Fault::Stall => {
                    // The proxy holds the sender for as long as there are connections.
                    let _ = self.fault.changed().await;
                    continue;
                }
                Fault::Delay(delay) => tokio::time::sleep(delay).await,
                Fault::Cut(most) if matches!(way, Way::Down) => {
                    cut = self.brought + bytes.len() >= most;
                    bytes = &bytes[..bytes.len().min(most - self.brought)];
                }
                Fault::LoseAnswer(mark) => {
                    if let Way::Up(fault) = way
                        && bytes.windows(mark.len()).any(|window| window == mark)
                    {
                        self.doomed.send_replace(true);
                        fault.send_replace(Fault::None);
                    }
                }
                Fault::None | Fault::Cut(_) | Fault::Http500(_) => {}
            }
            break;
        }
        to.write_all(bytes).await.map_err(|_| End::Reset)?;
        self.brought += bytes.len();
        if cut { Err(End::Cut) } else { Ok(()) }
    }
}

async fn is_reset(fault: &mut watch::Receiver<Fault>) {
    if fault.wait_for(|fault| *fault == Fault::Reset).await.is_err() {
        // Nobody can begin a fault any more.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
