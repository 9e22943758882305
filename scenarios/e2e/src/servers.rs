//! Object store servers that others wrote, each started on a free port of loopback for one test.
//!
//! A server ends with its value, with a test that fails, and with a test process that is killed.
//! What is *not* here: their installation (`cargo xtask tools`).

use crate::{Place, run, text};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// Azurite, pinned: the one that `cargo xtask tools` installs.
const AZURITE: &str = "azurite-3.35.0/node_modules/azurite/dist/src/blob/main.js";
/// Python with moto, pinned likewise.
const MOTO: &str = "moto-5.2.5/bin/python";
/// The account and the key that every Azurite has, by its documentation.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// What a segment begins with, and how long that beginning is (`engine/docs/vault-format.md`).
const SEGMENT: &[u8] = b"DRSEG1\0\0";
const SEGMENT_HEADER: usize = 128;
/// Makes a container: endpoint, account, key and name are its arguments.
const MAKE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
endpoint, account, key, name = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
text = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:2023-11-03\n/{account}/{account}/{name}\nrestype:container"
sign = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": "2023-11-03", "Authorization": f"SharedKey {account}:{sign}"}
urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers))
"#;
/// moto, one request at a time: between its look for an object of that name and its creation, another thread of it may
/// create one, and a store whose creations are not exclusive is refused, as it should be.
const SERVE_MOTO: &str = r#"
import sys, threading
from moto import server
serve, turn = server.run_simple, threading.Lock()
def one_at_a_time(app):
    def answer(environ, start_response):
        with turn:
            return list(app(environ, start_response))
    return answer
server.run_simple = lambda host, port, app, **options: serve(host, port, one_at_a_time(app), **options)
server.main(sys.argv[1:])
"#;
/// Makes a bucket of moto, which asks for no signature.
const MAKE_BUCKET: &str = r#"
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(f"{sys.argv[1]}/{sys.argv[2]}", method="PUT"))
"#;

/// A running server.
pub struct Server {
    child: Child,
    scheme: &'static str,
    /// Where it keeps objects, if that is on disk.
    objects: Option<PathBuf>,
    /// Address for clients.
    pub endpoint: String,
    /// File of credentials for it.
    pub credentials: PathBuf,
}

fn tool(name: &str) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let path = Path::new(&home).join(".cache/redoubt-test-tools").join(name);
    if !path.exists() {
        bail!("{} does not exist: `cargo xtask tools` installs it", path.display());
    }
    Ok(path)
}

impl Server {
    /// Starts Azure Blob Storage's emulator, with its objects on disk.
    pub fn azurite(place: &Place) -> Result<Server> {
        let mut command = Command::new("node");
        let objects = place.path("azurite");
        command.arg(tool(AZURITE)?).args(["--blobHost", "127.0.0.1", "--blobPort", "0"]);
        command.args(["--location", text(&objects), "--disableTelemetry", "--silent"]);
        // Clients of newer versions are as good.
        command.arg("--skipApiVersionCheck");
        let credentials =
            format!("AZURE_STORAGE_ACCOUNT_NAME={ACCOUNT}\nAZURE_STORAGE_ACCOUNT_KEY={ACCOUNT_KEY}\n");
        let mut server = Server::start("az", command, place, &credentials)?;
        server.endpoint = format!("{}/{ACCOUNT}", server.endpoint);
        server.objects = Some(objects.join("__blobstorage__"));
        Ok(server)
    }

    /// Starts a server of S3's protocol, in memory.
    pub fn moto(place: &Place) -> Result<Server> {
        let mut command = Command::new(tool(MOTO)?);
        command.args(["-c", SERVE_MOTO, "-H", "127.0.0.1", "-p", "0"]);
        let credentials = "AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\nAWS_REGION=us-east-1\n";
        Server::start("s3", command, place, credentials)
    }

    /// Makes a bucket or container and returns a URL in it.
    pub fn holder(&self, name: &str) -> Result<String> {
        let python = tool(MOTO)?;
        let (endpoint, python) = (self.endpoint.as_str(), python.as_os_str());
        match self.scheme {
            "az" => run(python, &["-c", MAKE_CONTAINER, endpoint, ACCOUNT, ACCOUNT_KEY, name])?,
            _ => run(python, &["-c", MAKE_BUCKET, endpoint, name])?,
        };
        Ok(format!("{}://{name}", self.scheme))
    }

    /// Changes a byte of the first unit of the oldest segment behind the server's back; false if it has nothing on disk.
    pub fn rot(&self) -> Result<bool> {
        let Some(objects) = &self.objects else { return Ok(false) };
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(objects)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort_by_key(|file| std::fs::metadata(file).and_then(|data| data.created()).ok());
        for file in files {
            let mut bytes = std::fs::read(&file)?;
            if let Some(at) = bytes.windows(SEGMENT.len()).position(|window| window == SEGMENT) {
                bytes[at + SEGMENT_HEADER + 100] ^= 1;
                std::fs::write(&file, bytes)?;
                return Ok(true);
            }
        }
        bail!("no segment is stored in {}", objects.display())
    }

    fn start(scheme: &'static str, mut command: Command, place: &Place, credentials: &str) -> Result<Server> {
        let file = place.path(&format!("{scheme}.credentials"));
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options.write(true).create_new(true).mode(0o600).open(&file)?;
        std::io::Write::write_all(&mut opened, credentials.as_bytes())?;
        let (output, input) = std::io::pipe()?;
        command.current_dir(place.path(".")).stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        // SAFETY: prctl is safe between fork and exec; the server dies with the thread of its test.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        // Our own ends of the pipe go with it.
        drop(command);
        let mut server = Server { child, scheme, objects: None, endpoint: String::new(), credentials: file };
        server.endpoint = announced(output).with_context(|| format!("{scheme} server"))?;
        Ok(server)
    }

    /// Options of a command that is to use this server.
    pub fn options(&self) -> [&str; 4] {
        ["--vault-endpoint", &self.endpoint, "--vault-credentials", text(&self.credentials)]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the address that the server prints when it is ready. What it prints later is read and forgotten, so
/// that it never waits for us.
fn announced(output: impl Read + Send + 'static) -> Result<String> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut output = BufReader::new(output).lines().map_while(Result::ok);
        for line in output.by_ref() {
            let at = line.find("http://127.0.0.1:");
            let is_ready = line.contains("listens on") || line.contains("Running on");
            if let Some(at) = at.filter(|_| is_ready) {
                let _ = found.send(Ok(line[at..].trim().to_owned()));
                break;
            }
            lines.push(line);
        }
        let _ = found.send(Err(lines.join("\n")));
        output.for_each(drop);
    });
    address.recv()?.map_err(|printed| anyhow::anyhow!("it ended before it was ready:\n{printed}"))
}
