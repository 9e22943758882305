//! A host, a vault that can be out of reach, and servers to start on them.

use crate::support::MemHost;
use crate::support::agent::{MACHINE, Session, Stream, VOLUME};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::Extent;
use redoubt_core::message::{Message, RefusedReason, Welcome};
use redoubt_ports::{Endpoint, RawStore, StoreError, StoreKey};
use redoubt_roles::process_server::{ProcessServer, PsSettings};
use redoubt_vault::{MachineReader, MemStore, Vault, VaultKeys};
use redoubt_wire::StreamKey;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Seconds of paused time after which something will never happen.
const NEVER: u32 = 600;

/// A host's way to the store, which can be closed.
#[derive(Default)]
pub(crate) struct Gate {
    inner: Arc<MemStore>,
    is_closed: AtomicBool,
    keeps_slots_out: AtomicBool,
    is_full: AtomicBool,
}

impl Gate {
    pub(crate) fn close(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::SeqCst);
    }

    /// Segments pass, log slots do not.
    pub(crate) fn keep_slots_out(&self, keep: bool) {
        self.keeps_slots_out.store(keep, Ordering::SeqCst);
    }

    /// Nothing more fits into the store.
    pub(crate) fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Segments in the store, whether a record names them or not.
    pub(crate) fn segments(&self) -> usize {
        self.inner.names().iter().filter(|name| name.as_str().contains("/seg/")).count()
    }

    /// All that the store holds.
    pub(crate) fn copy(&self) -> Vec<(StoreKey, Bytes)> {
        self.inner
            .names()
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.inner.peek(&name)?)))
            .collect()
    }

    /// A copy takes the place of everything.
    pub(crate) fn restore(&self, copy: Vec<(StoreKey, Bytes)>) {
        self.inner.names().iter().for_each(|name| self.inner.tamper(name, None));
        copy.into_iter().for_each(|(name, bytes)| self.inner.tamper(&name, Some(bytes)));
    }

    fn check_put(&self, key: &StoreKey) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::NoSpace);
        }
        match self.keeps_slots_out.load(Ordering::SeqCst) && key.as_str().contains("/log/") {
            true => Err(StoreError::Unavailable("no slot passes".to_owned())),
            false => self.check(),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("the gate is closed".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl RawStore for Gate {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.check_put(key)?;
        self.inner.put_if_absent(key, body).await
    }
    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.inner.get(key, range).await
    }
    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.check()?;
        self.inner.list_after(prefix, after, limit).await
    }
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.check()?;
        self.inner.delete(key).await
    }
}

pub(crate) fn keys() -> VaultKeys {
    VaultKeys::new([3; 32])
}

pub(crate) fn stream_key() -> StreamKey {
    StreamKey::new(keys().stream_key(MACHINE))
}

/// Where one process server runs.
pub(crate) struct Site {
    pub(crate) host: MemHost,
    pub(crate) store: Arc<Gate>,
    pub(crate) vault: Vault,
    name: &'static str,
}

impl Site {
    pub(crate) async fn new() -> Site {
        let host = MemHost::new(1);
        let store = Arc::new(Gate::default());
        let vault = Vault::init(store.clone(), keys(), &*host.world().entropy).await.unwrap();
        Site { host, store, vault, name: "ps" }
    }

    /// A second host with its own files and its own way to the same store.
    pub(crate) async fn another(&self) -> Site {
        let mut host = MemHost::new(2);
        host.net = self.host.net.clone();
        let store = Arc::new(Gate { inner: self.store.inner.clone(), ..Gate::default() });
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        Site { host, store, vault, name: "ps2" }
    }

    pub(crate) async fn start(&self) -> ProcessServer {
        self.start_with(self.settings()).await
    }

    pub(crate) fn settings(&self) -> PsSettings {
        PsSettings::new(Endpoint::Tcp(self.name.to_owned(), 0), self.name)
    }

    pub(crate) async fn start_with(&self, settings: PsSettings) -> ProcessServer {
        ProcessServer::start(settings, self.host.world(), self.store.clone(), keys()).await.unwrap()
    }

    pub(crate) async fn welcomed(&self, server: &ProcessServer, stream: &Stream) -> (Session, Welcome) {
        Session::welcomed(&self.host, &server.endpoint(), stream).await
    }

    pub(crate) async fn refused(&self, server: &ProcessServer, stream: &Stream) -> (RefusedReason, String) {
        Session::refused(&self.host, &server.endpoint(), stream).await
    }

    /// Opens sessions, one a second, while they are refused for this reason.
    pub(crate) async fn welcomed_after(
        &self,
        server: &ProcessServer,
        stream: &Stream,
        refusal: RefusedReason,
    ) -> (Session, Welcome) {
        for _ in 0..NEVER {
            match Session::open(&self.host, &server.endpoint(), stream).await {
                (session, Message::Welcome(welcome)) => return (session, welcome),
                (_, Message::Refused { reason, .. }) if reason == refusal => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                (_, answer) => panic!("{answer:?}"),
            }
        }
        panic!("refused for ever: {refusal}");
    }

    /// Returns sector `lba` as the vault's head has it.
    pub(crate) async fn sector(&self, lba: u64) -> Bytes {
        let reader = MachineReader::open(&self.vault, MACHINE).await.unwrap();
        reader.head_view().read(VOLUME, Extent::new(lba, 1)).await.unwrap()
    }

    pub(crate) async fn points(&self) -> usize {
        MachineReader::open(&self.vault, MACHINE).await.unwrap().points().len()
    }
}

/// A site whose server holds an opened stream, all of it in the vault.
pub(crate) struct Begun {
    pub(crate) site: Site,
    pub(crate) server: ProcessServer,
    pub(crate) stream: Stream,
    pub(crate) session: Session,
}

impl Begun {
    pub(crate) async fn new() -> Begun {
        let site = Site::new().await;
        let settings = site.settings();
        Begun::with(site, settings).await
    }

    pub(crate) async fn with(site: Site, settings: PsSettings) -> Begun {
        let server = site.start_with(settings).await;
        let mut stream = Stream::new(stream_key());
        let (mut session, welcome) = site.welcomed(&server, &stream).await;
        assert_eq!((welcome.staged, welcome.exact), (stream.at, false));
        session.send_batch(&stream.opening()).await;
        session.vaulted(stream.at.seq).await;
        Begun { site, server, stream, session }
    }
}

/// Waits until the condition holds. Each round lets every task run until it waits for a later moment.
pub(crate) async fn until(what: impl std::fmt::Debug, condition: impl Fn() -> bool) {
    for _ in 0..NEVER {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("never: {what:?}");
}
