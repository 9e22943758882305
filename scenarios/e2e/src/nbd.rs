//! A small NBD client of our own: fixed newstyle, `GO`, simple replies, one request at a time.
//!
//! It exists so that a test knows exactly which write was answered and which was not.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_GO: u32 = 7;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// One connection in transmission.
pub struct Client {
    stream: UnixStream,
    cookie: u64,
    /// Size of the export in bytes.
    pub size: u64,
}

impl Client {
    /// Connects to an export; the empty name is the default one.
    pub fn connect(socket: &Path, export: &str) -> Result<Client> {
        let mut stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        ensure!(&greeting[..8] == b"NBDMAGIC" && &greeting[8..16] == OPTION_MAGIC, "no NBD server");
        // Fixed newstyle, no zeroes.
        stream.write_all(&3u32.to_be_bytes())?;
        let mut option = Vec::from(OPTION_MAGIC);
        option.extend(OPTION_GO.to_be_bytes());
        option.extend((export.len() as u32 + 6).to_be_bytes());
        option.extend((export.len() as u32).to_be_bytes());
        option.extend(export.as_bytes());
        option.extend(0u16.to_be_bytes());
        stream.write_all(&option)?;
        let mut size = None;
        loop {
            let mut head = [0; 20];
            stream.read_exact(&mut head)?;
            ensure!(u64::from_be_bytes(head[..8].try_into()?) == OPTION_REPLY_MAGIC, "no option reply");
            let kind = u32::from_be_bytes(head[12..16].try_into()?);
            let mut body = vec![0; u32::from_be_bytes(head[16..20].try_into()?) as usize];
            stream.read_exact(&mut body)?;
            match kind {
                REPLY_ACK => break,
                REPLY_INFO if body[..2] == [0, 0] => size = Some(u64::from_be_bytes(body[2..10].try_into()?)),
                REPLY_INFO => {}
                error => bail!("export {export:?} is refused: {error:#x} {}", String::from_utf8_lossy(&body)),
            }
        }
        Ok(Client { stream, cookie: 0, size: size.context("the server told no size")? })
    }

    fn request(&mut self, command: u16, flags: u16, offset: u64, length: u32, payload: &[u8]) -> Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + payload.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(flags.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(payload);
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        ensure!(u32::from_be_bytes(reply[..4].try_into()?) == SIMPLE_REPLY_MAGIC, "no simple reply");
        ensure!(u64::from_be_bytes(reply[8..].try_into()?) == self.cookie, "a reply to another request");
        let error = u32::from_be_bytes(reply[4..8].try_into()?);
        ensure!(error == 0, "the server answered error {error}");
        Ok(())
    }

    /// Reads a range.
    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.request(0, 0, offset, length, &[])?;
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }

    /// Writes a range; returns when it is answered.
    pub fn write(&mut self, offset: u64, payload: &[u8]) -> Result<()> {
        self.request(1, 0, offset, payload.len() as u32, payload)
    }

    /// Makes answered writes durable.
    pub fn flush(&mut self) -> Result<()> {
        self.request(3, 0, 0, 0, &[])
    }
}
