//! A headless browser over its debugging pipe: opens a page as some reader would see it, and tells what it met.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Debian's package of the same name; `cargo xtask tools` installs it.
const BROWSER: &str = "chromium-headless-shell";

/// The browser speaks on its descriptors 3 and 4; here they are its input and output.
const REWIRE: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;

/// With this in the environment, a picture of each page is left beside it, for a person to look at.
const PICTURES: &str = "REDOUBT_REPORT_PICTURES";

/// Looks at the page as it stands.
const PROBE: &str = include_str!("probe.js");

/// How a page is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    pub(crate) width: u32,
    pub(crate) is_dark: bool,
    pub(crate) is_print: bool,
}

/// What was met on a page.
#[derive(Debug)]
pub(crate) struct Met {
    /// What was asked for, the page itself not counted.
    pub(crate) requests: Vec<String>,
    /// What was said on the console.
    pub(crate) console: Vec<String>,
    /// What a person would see at once.
    pub(crate) problems: Vec<String>,
    /// All words that can be seen.
    pub(crate) words: String,
    /// Lines of words.
    pub(crate) boxes: u64,
}

pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    events: Vec<Value>,
    calls: u64,
    session: Value,
}

impl Browser {
    /// Starts it with one empty page.
    pub(crate) fn start(profile: &Path) -> Browser {
        let mut command = Command::new("sh");
        command.args(["-c", REWIRE, BROWSER, "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        command.arg("--remote-debugging-pipe").arg(format!("--user-data-dir={}", profile.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Browser { child, to, from, events: Vec::new(), calls: 0, session: Value::Null };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", target)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn receive(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).unwrap();
        bytes.pop();
        assert!(!bytes.is_empty(), "{BROWSER} ended; `cargo xtask tools` installs it");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Calls a method and returns its result; events on the way are kept.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.receive();
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Opens a file as a reader does, and looks at it.
    pub(crate) fn open(&mut self, file: &Path, reader: Reader) -> Met {
        let scheme = if reader.is_dark { "dark" } else { "light" };
        let media = if reader.is_print { "print" } else { "screen" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "media": media, "features": features }));
        let size = json!({ "width": reader.width, "height": 1000, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        self.events.clear();
        let address = format!("file://{}", file.display());
        self.call("Page.navigate", json!({ "url": address }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
        if std::env::var_os(PICTURES).is_some() {
            self.picture(&file.with_extension(format!("{}.png", reader.name)));
        }
        let seen = self.call("Runtime.evaluate", json!({ "expression": PROBE }));
        let text = seen["result"]["value"].as_str().unwrap_or_else(|| panic!("the probe failed: {seen}"));
        let seen: Value = serde_json::from_str(text).unwrap();
        let problems = seen["problems"].as_array().unwrap();
        Met {
            requests: self.requests(&address),
            console: self.console(),
            problems: problems.iter().map(|problem| problem.as_str().unwrap().to_owned()).collect(),
            words: seen["words"].as_str().unwrap().to_owned(),
            boxes: seen["boxes"].as_u64().unwrap(),
        }
    }

    fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        std::fs::write(file, unbase64(shot["data"].as_str().unwrap())).unwrap();
    }

    fn requests(&self, page: &str) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let addresses = sent.filter_map(|event| event["params"]["request"]["url"].as_str());
        addresses.filter(|address| *address != page).map(str::to_owned).collect()
    }

    fn console(&self) -> Vec<String> {
        let said = ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"];
        let events = self.events.iter().filter(|event| said.iter().any(|method| event["method"] == *method));
        events.map(|event| event["params"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closed pipes end it, too; this is sooner.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|known| *known == letter) else { continue };
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
