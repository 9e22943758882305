//! The connection loop with an export whose requests end when the test says so.
#![allow(missing_docs)]

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use redoubt_nbd::client::{
    Reply, ReplyBody, encode_option, encode_request, info_body, parse_option_reply, parse_reply,
};
use redoubt_nbd::proto::{flag, opt};
use redoubt_nbd::{Errno, Op, Request};
use redoubt_roles::nbd_server::{
    BlockRange, ConnectionEnd, Export, ExportError, ExportInfo, SingleExport, serve_connection,
};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Reads end at once. A write ends when the gate of its offset's page gets a permit.
struct Gated {
    size: AtomicU64,
    gates: Vec<Semaphore>,
    started: AtomicUsize,
    ended: Mutex<Vec<u64>>,
}

impl Gated {
    fn new() -> Arc<Gated> {
        let gates = (0..512).map(|_| Semaphore::new(0)).collect();
        let (started, ended) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Gated { size: AtomicU64::new(1 << 30), gates, started, ended })
    }

    fn open(&self, page: usize) {
        self.gates[page].add_permits(1);
    }

    async fn until_started(&self, count: usize) {
        while self.started.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Export for Gated {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            size_bytes: self.size.load(Ordering::SeqCst),
            read_only: false,
            can_multi_conn: true,
            can_trim: true,
            has_fast_zeroes: false,
        }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        if offset == 666 {
            return Err(ExportError::Io("bad sector".to_owned()));
        }
        Ok(Bytes::from(vec![offset as u8; length as usize]))
    }

    async fn write(&self, offset: u64, _payload: Bytes, _fua: bool) -> Result<(), ExportError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let page = offset / 4096;
        self.gates[page as usize].acquire().await.expect("gates stay open").forget();
        self.ended.lock().unwrap().push(page);
        Ok(())
    }

    async fn write_zeroes(&self, _: u64, _: u64, _: bool, _: bool, _: bool) -> Result<(), ExportError> {
        Ok(())
    }

    async fn trim(&self, _: u64, _: u64, _: bool) -> Result<(), ExportError> {
        Err(ExportError::NoSpace)
    }

    async fn flush(&self) -> Result<(), ExportError> {
        Err(ExportError::ShuttingDown)
    }

    async fn block_status(&self, _: u64, length: u64) -> Result<Vec<BlockRange>, ExportError> {
        Ok(vec![BlockRange { length, is_hole: false, is_zero: false }])
    }
}

struct Client {
    stream: DuplexStream,
    input: BytesMut,
    structured: bool,
}

type Served = JoinHandle<std::io::Result<ConnectionEnd>>;

async fn connect(
    export: &Arc<Gated>,
    structured: bool,
    buffer: usize,
) -> (Client, watch::Sender<bool>, Served) {
    let (stream, theirs) = tokio::io::duplex(buffer);
    let (stop, stopping) = watch::channel(false);
    let directory = Arc::new(SingleExport::new("disk", Arc::clone(export) as Arc<dyn Export>));
    let served = tokio::spawn(serve_connection(Box::new(theirs), directory, stopping));
    let mut client = Client { stream, input: BytesMut::new(), structured };
    let mut out = BytesMut::new();
    out.extend_from_slice(&u32::from(flag::FIXED_NEWSTYLE | flag::NO_ZEROES).to_be_bytes());
    if structured {
        encode_option(&mut out, opt::STRUCTURED_REPLY, &[]);
    }
    encode_option(&mut out, opt::GO, &info_body("disk", &[]));
    client.stream.write_all(&out).await.unwrap();
    client.stream.read_exact(&mut [0; 18]).await.unwrap();
    let mut acknowledged = 0;
    while acknowledged < 1 + usize::from(structured) {
        match parse_option_reply(&mut client.input).unwrap() {
            Some(reply) => acknowledged += usize::from(reply.kind == 1),
            None => assert_ne!(client.stream.read_buf(&mut client.input).await.unwrap(), 0),
        }
    }
    (client, stop, served)
}

impl Client {
    async fn send(&mut self, requests: impl IntoIterator<Item = (u64, Op)>) {
        let mut out = BytesMut::new();
        for (cookie, op) in requests {
            encode_request(&mut out, &Request { cookie, op });
        }
        self.stream.write_all(&out).await.unwrap();
    }

    /// Reads the next reply; simple replies to reads are of 512 bytes here, with odd cookies.
    async fn reply(&mut self) -> Option<Reply> {
        let structured = self.structured;
        loop {
            let payload = |cookie: u64| if !structured && cookie % 2 == 1 { 512 } else { 0 };
            if let Some(reply) = parse_reply(&mut self.input, payload).unwrap() {
                return Some(reply);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn cookie(&mut self) -> u64 {
        let reply = self.reply().await.unwrap();
        assert_eq!(reply.body, ReplyBody::Simple(Ok(Bytes::new())));
        reply.cookie
    }
}

fn write(page: u64) -> (u64, Op) {
    (page * 2, Op::Write { offset: page * 4096, payload: Bytes::from(vec![1; 4096]), fua: false })
}

#[tokio::test]
async fn replies_come_as_requests_end_not_as_they_were_sent() {
    let export = Gated::new();
    let (mut client, _stop, _served) = connect(&export, true, 1 << 20).await;
    client.send((0..4).map(write)).await;
    for page in [2, 0, 3, 1] {
        export.open(page);
        assert_eq!(client.cookie().await, page as u64 * 2);
    }
}

#[tokio::test]
async fn a_read_overtakes_a_write_in_flight_in_both_kinds_of_reply() {
    for structured in [false, true] {
        let export = Gated::new();
        let (mut client, _stop, _served) = connect(&export, structured, 1 << 20).await;
        client.send([write(0), (1, Op::Read { offset: 7, length: 512, one_piece: false })]).await;
        let reply = client.reply().await.unwrap();
        let content = Bytes::from(vec![7; 512]);
        let expected = if structured { ReplyBody::Data(7, content) } else { ReplyBody::Simple(Ok(content)) };
        assert_eq!(reply, Reply { cookie: 1, done: true, body: expected });
        export.open(0);
        assert_eq!(client.cookie().await, 0);
    }
}

#[tokio::test]
async fn errors_of_the_export_reach_the_client_as_the_errno_that_fits() {
    let export = Gated::new();
    let (mut client, _stop, _served) = connect(&export, true, 1 << 20).await;
    let zeroes = |fast_only| Op::WriteZeroes {
        offset: 0,
        length: u32::MAX >> 3,
        fua: false,
        may_unmap: true,
        fast_only,
    };
    let cases = [
        (Op::Read { offset: 666, length: 512, one_piece: false }, Some(Errno::Io)),
        (Op::Trim { offset: 0, length: 512, fua: false }, Some(Errno::NoSpc)),
        (Op::Flush, Some(Errno::Shutdown)),
        (zeroes(true), Some(Errno::NotSup)),
        (zeroes(false), None),
        (Op::Cache { offset: 0, length: 512 }, None),
        (Op::Write { offset: 1 << 30, payload: Bytes::from_static(b"x"), fua: false }, Some(Errno::NoSpc)),
    ];
    for (op, expected) in cases {
        client.send([(4, op)]).await;
        let got = match client.reply().await.unwrap().body {
            ReplyBody::Simple(Err(errno)) | ReplyBody::Error(errno, ..) => Some(errno),
            ReplyBody::Simple(Ok(_)) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(got, expected);
    }
}

#[tokio::test]
async fn a_resize_counts_from_the_next_request() {
    let export = Gated::new();
    let (mut client, _stop, _served) = connect(&export, false, 1 << 20).await;
    let read = || [(1, Op::Read { offset: 4096, length: 512, one_piece: false })];
    client.send(read()).await;
    assert!(matches!(client.reply().await.unwrap().body, ReplyBody::Simple(Ok(_))));
    export.size.store(4096, Ordering::SeqCst);
    client.send(read()).await;
    assert_eq!(client.reply().await.unwrap().body, ReplyBody::Simple(Err(Errno::Inval)));
}

#[tokio::test]
async fn a_stop_answers_what_was_taken_then_closes() {
    let export = Gated::new();
    let (mut client, stop, served) = connect(&export, true, 1 << 20).await;
    client.send((0..3).map(write)).await;
    export.until_started(3).await;
    stop.send_replace(true);
    (0..3).for_each(|page| export.open(page));
    let mut cookies = Vec::new();
    while let Some(reply) = client.reply().await {
        cookies.push(reply.cookie);
    }
    cookies.sort_unstable();
    assert_eq!(cookies, [0, 2, 4]);
    assert_eq!(served.await.unwrap().unwrap(), ConnectionEnd::Stopped);
}

#[tokio::test]
async fn requests_of_a_client_that_vanished_still_run_to_their_end() {
    let export = Gated::new();
    let (mut client, _stop, served) = connect(&export, true, 1 << 20).await;
    client.send((0..3).map(write)).await;
    export.until_started(3).await;
    drop(client);
    (0..3).for_each(|page| export.open(page));
    // Its replies cannot be sent: an error of the client, not of the server.
    let _ = served.await.unwrap();
    assert_eq!(export.ended.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from_for_ever() {
    let export = Gated::new();
    let (mut client, _stop, _served) = connect(&export, true, 4096).await;
    let flood = async {
        let read = || (1, Op::Read { offset: 0, length: 32 << 20, one_piece: true });
        for _ in 0..10_000 {
            client.send([read()]).await;
        }
    };
    // Without backpressure the flood ends; with it, it stays stuck while the server idles.
    let idle = async {
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = flood => panic!("the server took every request of a client that reads nothing"),
        () = idle => {}
    }
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let export = Gated::new();
    let (mut client, _stop, _served) = connect(&export, true, 4 << 20).await;
    client.send((0..400).map(write)).await;
    export.until_started(256).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(export.started.load(Ordering::SeqCst), 256);
    (0..400).for_each(|page| export.open(page));
    for _ in 0..400 {
        client.cookie().await;
    }
}

#[tokio::test]
async fn garbage_ends_the_connection_with_an_error() {
    let export = Gated::new();
    let (mut client, _stop, served) = connect(&export, true, 1 << 20).await;
    client.stream.write_all(&[0; 28]).await.unwrap();
    assert!(client.reply().await.is_none());
    assert_eq!(served.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_busy_client_lets_other_tasks_run() {
    let export = Gated::new();
    let (client, _stop, _served) = connect(&export, true, 1 << 16).await;
    let (mut from, mut to) = tokio::io::split(client.stream);
    let sink = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    let flood = tokio::spawn(async move {
        let mut out = BytesMut::new();
        for _ in 0..1000 {
            let op = Op::Cache { offset: 0, length: 512 };
            encode_request(&mut out, &Request { cookie: 2, op });
        }
        while to.write_all(&out).await.is_ok() {}
    });
    // One thread: this ends only if the connection's task returns again and again.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    flood.abort();
    sink.abort();
}
