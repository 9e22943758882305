//! What every [`Net`] must do, faults aside. Each implementation runs this suite at fresh endpoints
//! named by its factory; a broken promise panics with its name.

use crate::{ByteStream, Endpoint, Listener, Net, NetError};
use futures::future::{Future, join, join_all};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Larger than the buffers of any implementation, so that writers must wait for readers.
const TRANSFER_BYTES: usize = 3 << 20;

/// More than the small numbers that fit everywhere by luck.
const CONNECTIONS: u16 = 100;

/// A writer must learn that its peer is gone before it wrote this often.
const FRUITLESS_WRITES_MAX: usize = 1000;

/// Where a suite runs.
pub struct Site {
    /// Sockets of the host that listens.
    pub server: Arc<dyn Net>,
    /// Sockets of the host that connects; may be the same.
    pub client: Arc<dyn Net>,
    /// Where to listen: an endpoint that nobody uses; TCP with port 0.
    pub at: Endpoint,
}

type Stream = Box<dyn ByteStream>;

/// Runs the whole suite.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Site>,
{
    where_nobody_listens_a_connection_is_refused(factory().await).await;
    an_address_has_one_listener(factory().await).await;
    port_zero_is_any_free_port(factory().await).await;
    large_transfers_arrive_in_order_both_ways(factory().await).await;
    a_half_closed_stream_still_works_the_other_way(factory().await).await;
    a_dropped_stream_ends_for_its_peer(factory().await).await;
    many_connections_do_not_mix(factory().await).await;
    a_stream_outlives_its_listener(factory().await).await;
}

async fn listen(site: &Site) -> Box<dyn Listener> {
    site.server.listen(&site.at).await.expect("a free address can be listened at")
}

/// Returns the two ends of a new connection: the client's, then the server's.
async fn connect(site: &Site, listener: &dyn Listener) -> (Stream, Stream) {
    let to = listener.endpoint();
    let (client, accepted) = join(site.client.connect(&to), listener.accept()).await;
    let (server, peer) = accepted.expect("a connection is accepted");
    assert!(!peer.is_empty(), "the peer has a name");
    (client.expect("where somebody listens a connection succeeds"), server)
}

/// Returns bytes in which every position differs from its neighbours' blocks.
fn pattern(salt: usize) -> Vec<u8> {
    (0..TRANSFER_BYTES).map(|at| (at ^ (at >> 8) ^ (at >> 16) ^ salt) as u8).collect()
}

async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut found = Vec::new();
    stream.read_to_end(&mut found).await.expect("the end of a stream is no error");
    found
}

async fn where_nobody_listens_a_connection_is_refused(site: Site) {
    let listener = listen(&site).await;
    let at = listener.endpoint();
    drop(listener);
    let refused = site.client.connect(&at).await.err();
    assert_eq!(refused, Some(NetError::Refused(at)), "a closed listener refuses");
}

async fn an_address_has_one_listener(site: Site) {
    let first = listen(&site).await;
    let at = first.endpoint();
    let second = site.server.listen(&at).await.err();
    assert_eq!(second, Some(NetError::InUse(at.clone())), "a taken address is in use");
    connect(&site, &*first).await;
    drop(first);
    let again = site.server.listen(&at).await.expect("an address is free once its listener is gone");
    assert_eq!(again.endpoint(), at);
    connect(&site, &*again).await;
}

async fn port_zero_is_any_free_port(site: Site) {
    let Endpoint::Tcp(_, 0) = site.at else { return };
    let listeners = join_all((0..8).map(|_| listen(&site))).await;
    let endpoints: BTreeSet<Endpoint> = listeners.iter().map(|listener| listener.endpoint()).collect();
    assert_eq!(endpoints.len(), 8, "each listener has its own port: {endpoints:?}");
    for listener in &listeners {
        assert!(!matches!(listener.endpoint(), Endpoint::Tcp(_, 0)), "the real port is told");
        connect(&site, &**listener).await;
    }
}

async fn large_transfers_arrive_in_order_both_ways(site: Site) {
    let listener = listen(&site).await;
    let (client, server) = connect(&site, &*listener).await;
    let transfer = |stream: Stream, salt: usize| async move {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sending = async {
            // Uneven pieces: their bounds must not matter.
            for piece in pattern(salt).chunks(65_521) {
                writer.write_all(piece).await.expect("a peer that reads takes bytes");
            }
            writer.shutdown().await.expect("the last bytes are sent");
        };
        join(sending, read_to_end(&mut reader)).await.1
    };
    let (at_client, at_server) = join(transfer(client, 1), transfer(server, 2)).await;
    assert!(at_server == pattern(1), "what the client sent arrives whole and in order");
    assert!(at_client == pattern(2), "what the server sent arrives whole and in order");
}

async fn a_half_closed_stream_still_works_the_other_way(site: Site) {
    let listener = listen(&site).await;
    let (mut client, mut server) = connect(&site, &*listener).await;
    client.write_all(b"question").await.expect("a fresh stream takes bytes");
    client.shutdown().await.expect("a stream can be half closed");
    assert_eq!(read_to_end(&mut server).await, b"question", "the end comes after the bytes");
    server.write_all(b"answer").await.expect("the other way is still open");
    server.shutdown().await.expect("it can be closed, too");
    assert_eq!(read_to_end(&mut client).await, b"answer");
}

async fn a_dropped_stream_ends_for_its_peer(site: Site) {
    let listener = listen(&site).await;
    let (mut client, mut server) = connect(&site, &*listener).await;
    client.write_all(b"last words").await.expect("a fresh stream takes bytes");
    client.flush().await.expect("they are sent");
    drop(client);
    assert_eq!(read_to_end(&mut server).await, b"last words", "the end comes after the bytes");
    let block = vec![0; 64 << 10];
    for _ in 0..FRUITLESS_WRITES_MAX {
        if server.write_all(&block).await.is_err() {
            return;
        }
    }
    panic!("writing to a dropped stream fails");
}

async fn many_connections_do_not_mix(site: Site) {
    let listener = listen(&site).await;
    let to = listener.endpoint();
    let clients = join_all((0..CONNECTIONS).map(|number| {
        let (site, to) = (&site, &to);
        async move {
            let mut stream = site.client.connect(to).await.expect("a connection succeeds");
            stream.write_all(&number.to_be_bytes()).await.expect("a fresh stream takes bytes");
            let mut echoed = [0; 2];
            stream.read_exact(&mut echoed).await.expect("the echo arrives");
            assert_eq!(u16::from_be_bytes(echoed), !number, "each client gets its own answer");
        }
    }));
    let servers = async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(listener.accept().await.expect("a connection is accepted").0);
        }
        // All are open at once before the first is answered.
        join_all(streams.iter_mut().map(|stream| async move {
            let number = stream.read_u16().await.expect("the number arrives");
            stream.write_u16(!number).await.expect("the answer is sent");
            number
        }))
        .await
    };
    let (_, numbers) = join(clients, servers).await;
    let numbers: BTreeSet<u16> = numbers.into_iter().collect();
    assert_eq!(numbers.len(), usize::from(CONNECTIONS), "each connection came once");
}

async fn a_stream_outlives_its_listener(site: Site) {
    let listener = listen(&site).await;
    let (mut client, mut server) = connect(&site, &*listener).await;
    drop(listener);
    client.write_all(b"still here").await.expect("an accepted stream stays");
    drop(client);
    assert_eq!(read_to_end(&mut server).await, b"still here");
}
