//! Frames over a byte stream, as the agent's link uses them.
//!
//! What is *not* here: the process server's own connections (`connection`), which answer bad frames.

use redoubt_core::message::Message;
use redoubt_wire::Decoder;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// One frame must leave within this time.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 << 10;

/// Reads the next message; `None` at the end, on an error, or when the bytes are no frames.
pub(crate) async fn next<R: AsyncRead + Unpin>(reader: &mut R, decoder: &mut Decoder) -> Option<Message> {
    loop {
        match decoder.next() {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection is closed");
                return None;
            }
        }
        match reader.read_buf(decoder.space(READ_BYTES)).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// Writes messages until `None`, the end of the queue, or an error.
pub(crate) async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<Option<Message>>) {
    while let Some(Some(message)) = queue.recv().await {
        let frame = async {
            for part in redoubt_wire::encode(&message) {
                writer.write_all(&part).await?;
            }
            writer.flush().await
        };
        if !matches!(tokio::time::timeout(WRITE_DEADLINE, frame).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = tokio::time::timeout(WRITE_DEADLINE, writer.shutdown()).await;
}
