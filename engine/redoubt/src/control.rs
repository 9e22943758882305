//! The control socket of a running service: one JSON request a line, one JSON answer a line.
//!
//! ```text
//! > {"command":"status"}
//! < {"ok":{"service":"up",...}}
//! > {"command":"protect","name":"erp","path":"/dev/sdb"}
//! < {"error":{"what":"...","hint":"...","exit":4}}
//! ```
//!
//! The socket is in the state directory, which only its owner may enter: that is its access control.
//! What is *not* here: what the commands do; see [`Controlled`].

use crate::commands::nbd::Address;
use crate::failure::{Exit, Failure, Outcome};
use crate::status::Report;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use redoubt_host::HostNet;
use redoubt_ports::{ByteStream, Endpoint, Listener, Net, NetError};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;

/// Longest request or answer; a status with the disks of the largest machine fits.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Longest wait for an answer: opening a slow disk and saving the state included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Clients at once; each is one person or one script.
const CLIENTS_MAX: usize = 16;
/// Pause after a failed accept, so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Status,
    Protect {
        name: String,
        path: String,
    },
    /// Compares ranges with the vault and sends what it has not.
    Resync {
        machine: String,
        ranges: Vec<RangeRequest>,
    },
    /// The same of whole volumes, by name; without any, of all.
    Compare {
        /// Its name or its identity.
        machine: String,
        volumes: Vec<String>,
    },
}

/// A comparison that is taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) machine: String,
    pub(crate) name: String,
    pub(crate) volumes: Vec<String>,
    pub(crate) bytes: u64,
    /// A resync was under way, and begins again with these.
    pub(crate) joined: bool,
    /// Generation of the agent: another one knows nothing of it.
    pub(crate) generation: u64,
    /// Newest change before it: points of later ones are behind it.
    pub(crate) since: u64,
}

/// Bytes of a volume, which is named by its lasting identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RangeRequest {
    pub(crate) volume: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer<T> {
    Ok(T),
    Error { what: String, hint: Option<String>, exit: u8 },
}

/// A running service, as the control socket sees it.
pub(crate) trait Controlled: Send + Sync {
    fn status(&self) -> BoxFuture<'_, Outcome<Report>>;
    fn protect(&self, name: String, path: String) -> BoxFuture<'_, Outcome<Vec<Address>>>;
    /// Returns how many bytes are taken up.
    fn resync(&self, _machine: String, _ranges: Vec<RangeRequest>) -> BoxFuture<'_, Outcome<u64>> {
        Box::pin(async { Err(diskless("to repair from")) })
    }
    fn compare(&self, _machine: String, _volumes: Vec<String>) -> BoxFuture<'_, Outcome<Taken>> {
        Box::pin(async { Err(diskless("to compare")) })
    }
}

fn diskless(to: &str) -> Failure {
    Failure::usage(format!("this service has no disks {to}"))
        .hint("name the state directory of `redoubt agent` or `redoubt up` with --state")
}

/// Returns where the service of a state directory listens.
pub(crate) fn endpoint(state: &Path) -> Endpoint {
    Endpoint::Unix(state.join("control.sock").display().to_string())
}

/// Answers clients until `stop`.
pub(crate) async fn serve(
    listener: Box<dyn Listener>,
    service: Arc<dyn Controlled>,
    mut stop: watch::Receiver<bool>,
) {
    let mut clients = FuturesUnordered::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = clients.next(), if !clients.is_empty() => continue,
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = Arc::clone(&service);
                clients.push(tokio::spawn(async move { client(stream, &*service).await }));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    // The caller takes the service apart next, so nobody may hold it any more.
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    while clients.next().await.is_some() {}
}

async fn client(stream: Box<dyn ByteStream>, service: &dyn Controlled) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut stream).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        match tokio::time::timeout(ANSWER_DEADLINE, read).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return Ok(()),
        }
        let mut answer = match serde_json::from_slice(&line) {
            Ok(Request::Status) => encode(service.status().await),
            Ok(Request::Protect { name, path }) => encode(service.protect(name, path).await),
            Ok(Request::Resync { machine, ranges }) => encode(service.resync(machine, ranges).await),
            Ok(Request::Compare { machine, volumes }) => encode(service.compare(machine, volumes).await),
            Err(error) => {
                encode::<()>(Err(Failure::usage(format!("the service does not know this request: {error}"))))
            }
        };
        answer.push(b'\n');
        stream.get_mut().write_all(&answer).await?;
        stream.get_mut().flush().await?;
    }
}

fn encode<T: Serialize>(outcome: Outcome<T>) -> Vec<u8> {
    let answer = match outcome {
        Ok(value) => Answer::Ok(value),
        Err(failure) => Answer::Error { what: failure.what, hint: failure.hint, exit: failure.exit as u8 },
    };
    serde_json::to_vec(&answer)
        .unwrap_or_else(|_| b"{\"error\":{\"what\":\"unprintable\",\"exit\":1}}".to_vec())
}

/// Asks the service of a state directory.
pub(crate) async fn ask<T: for<'a> Deserialize<'a>>(state: &Path, request: &Request) -> Outcome<T> {
    let lost = |why: &str| {
        let what = format!("the service of state directory {} {why}", state.display());
        Failure::new(Exit::Unreachable, what).hint("look at the output of the service")
    };
    let conversation = async {
        let mut stream = match HostNet.connect(&endpoint(state)).await {
            Ok(stream) => BufReader::new(stream),
            Err(NetError::Refused(_)) => {
                let what = format!("no service runs with state directory {}", state.display());
                return Err(Failure::new(Exit::Unreachable, what)
                    .hint("start the service, or name its directory with --state"));
            }
            Err(error) => return Err(Failure::from(error)),
        };
        let mut line = serde_json::to_vec(request).map_err(|_| lost("cannot be asked this"))?;
        line.push(b'\n');
        stream.get_mut().write_all(&line).await.map_err(|_| lost("hung up"))?;
        stream.get_mut().flush().await.map_err(|_| lost("hung up"))?;
        let mut line = Vec::new();
        stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.map_err(|_| lost("hung up"))?;
        match serde_json::from_slice(&line) {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Error { what, hint, exit }) => Err(Failure { exit: Exit::of(exit), what, hint }),
            Err(_) => Err(lost("gave no answer that this program understands")),
        }
    };
    tokio::time::timeout(ANSWER_DEADLINE, conversation).await.map_err(|_| lost("did not answer in time"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    fn report() -> Report {
        Report::Agent(Box::new(crate::status::tests::report()))
    }

    impl Controlled for Fake {
        fn status(&self) -> BoxFuture<'_, Outcome<Report>> {
            Box::pin(async { Ok(report()) })
        }

        fn protect(&self, name: String, _: String) -> BoxFuture<'_, Outcome<Vec<Address>>> {
            Box::pin(async move { Err(Failure::new(Exit::Refused, format!("no {name}")).hint("try b")) })
        }

        fn resync(&self, _: String, ranges: Vec<RangeRequest>) -> BoxFuture<'_, Outcome<u64>> {
            Box::pin(async move { Ok(ranges.iter().map(|range| range.bytes).sum()) })
        }
    }

    #[tokio::test]
    async fn requests_are_answered_and_failures_keep_their_exit_code() {
        let directory = tempfile::tempdir().unwrap();
        let status: Outcome<Report> = ask(directory.path(), &Request::Status).await;
        assert_eq!(status.unwrap_err().exit, Exit::Unreachable);
        let listener = HostNet.listen(&endpoint(directory.path())).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Arc::new(Fake), stopped));
        let status: Report = ask(directory.path(), &Request::Status).await.unwrap();
        assert_eq!(status, report());
        let request = Request::Protect { name: "a".into(), path: "b".into() };
        let failure = ask::<Vec<Address>>(directory.path(), &request).await.unwrap_err();
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Refused, "no a"));
        let request = Request::Compare { machine: "a".into(), volumes: Vec::new() };
        let failure = ask::<Taken>(directory.path(), &request).await.unwrap_err();
        assert_eq!(
            (failure.exit, failure.what.as_str()),
            (Exit::Usage, "this service has no disks to compare")
        );
        let mut raw = HostNet.connect(&endpoint(directory.path())).await.unwrap();
        raw.write_all(b"{\"command\":\"explode\"}\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(raw).read_line(&mut line).await.unwrap();
        assert!(line.contains("\"exit\":2"), "{line}");
        stop.send(true).unwrap();
        server.await.unwrap();
    }
}
