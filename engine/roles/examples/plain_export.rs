//! Shows one file over NBD without replication: `plain_export FILE SOCKET`.
//!
//! For tests with clients that others wrote, and as the yardstick of the benches. File and socket
//! are the simplest that satisfy the ports; the product's own are in `redoubt-host`.
#![allow(clippy::disallowed_methods, missing_docs)]

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() {
    real::main();
}

#[cfg(not(madsim))]
mod real {
    use async_trait::async_trait;
    use bytes::{Bytes, BytesMut};
    use redoubt_core::{Extent, Sectors};
    use redoubt_ports::{ByteStream, Disk, DiskInfo, Endpoint, IoError, IoKind, Listener, NetError};
    use redoubt_roles::nbd_server::{DiskExport, SingleExport, serve};
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    struct FileDisk {
        file: File,
        sectors: Sectors,
    }

    fn failed(error: std::io::Error) -> IoError {
        IoError::new(IoKind::Device, "plain export", error.to_string())
    }

    fn length(extent: Extent) -> usize {
        usize::try_from(extent.bytes()).expect("an extent fits in memory")
    }

    #[async_trait]
    impl Disk for FileDisk {
        fn info(&self) -> DiskInfo {
            DiskInfo { sectors: self.sectors, physical_sector_bytes: 512, can_trim: true }
        }

        async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
            let mut buffer = BytesMut::zeroed(length(extent));
            self.file.read_exact_at(&mut buffer, extent.lba.bytes()).map_err(failed)?;
            Ok(buffer.freeze())
        }

        async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), IoError> {
            self.file.write_all_at(&payload, extent.lba.bytes()).map_err(failed)?;
            if durable { self.flush().await } else { Ok(()) }
        }

        async fn write_zeroes(&self, extent: Extent, _unmap: bool, durable: bool) -> Result<(), IoError> {
            const STEP: u64 = 1 << 20;
            let zeros = vec![0; STEP as usize];
            let mut at = extent.lba.bytes();
            let end = at + extent.bytes();
            while at < end {
                let step = STEP.min(end - at);
                self.file.write_all_at(&zeros[..step as usize], at).map_err(failed)?;
                at += step;
            }
            if durable { self.flush().await } else { Ok(()) }
        }

        async fn flush(&self) -> Result<(), IoError> {
            self.file.sync_data().map_err(failed)
        }

        async fn resize(&self, _sectors: Sectors) -> Result<(), IoError> {
            Err(IoError::new(IoKind::Unsupported, "resize", "not offered here"))
        }
    }

    struct UnixSocket(tokio::net::UnixListener, String);

    #[async_trait]
    impl Listener for UnixSocket {
        async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError> {
            let failed = |error: std::io::Error| NetError::Failed(self.endpoint(), error.to_string());
            let (stream, _) = self.0.accept().await.map_err(failed)?;
            Ok((Box::new(stream), "local".to_owned()))
        }

        fn endpoint(&self) -> Endpoint {
            Endpoint::Unix(self.1.clone())
        }
    }

    pub(crate) fn main() {
        let usage = "usage: plain_export FILE SOCKET";
        let mut arguments = std::env::args().skip(1);
        let (path, socket) = (arguments.next().expect(usage), arguments.next().expect(usage));
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file opens");
        let bytes = file.metadata().expect("the file has a size").len();
        let disk = FileDisk { file, sectors: Sectors(bytes / 512) };
        let export = DiskExport::new(Arc::new(disk), false);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("the runtime starts");
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(&socket).expect("the socket can be bound");
            let directory = Arc::new(SingleExport::new("plain", Arc::new(export)));
            let (stop, stopping) = tokio::sync::watch::channel(false);
            let server = serve(Box::new(UnixSocket(listener, socket)), directory, stopping);
            let server = tokio::spawn(server);
            // Stops on end of input, so that a test needs no signal.
            let mut input = String::new();
            while std::io::stdin().read_line(&mut input).is_ok_and(|read| read > 0) {}
            stop.send_replace(true);
            server.await.expect("the server ends cleanly");
        });
    }
}
