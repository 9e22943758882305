//! What a store in a cloud may answer, and what each answer means to the vault: a server of our own says it.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use redoubt_host::store::{StoreSettings, StoreUrl, open};
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

/// Largest request of these tests.
const REQUEST_BYTES: usize = 64 << 10;

/// Answers every request with these bytes, and hangs up.
fn always(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = vec![0; REQUEST_BYTES];
            let _ = connection.read(&mut request);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn error(status: &str, code: &str) -> String {
    http(status, "", &format!("<Error><Code>{code}</Code><Message>because</Message></Error>"))
}

fn store(answer: String) -> Arc<dyn RawStore> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credentials");
    std::fs::write(&file, "AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=hush\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = StoreUrl::parse("s3://bucket/site").unwrap();
    let settings =
        StoreSettings { endpoint: Some(always(answer)), credentials: Some(file), ..StoreSettings::new(url) };
    open(&settings).unwrap()
}

async fn put(answer: String) -> StoreError {
    let put = store(answer).put_if_absent(&StoreKey::new("a"), Bytes::from_static(b"x")).await;
    let error = put.unwrap_err();
    assert!(!error.to_string().contains("127.0.0.1") && !error.to_string().contains("hush"), "{error}");
    error
}

async fn get(answer: String) -> Result<Option<Bytes>, StoreError> {
    store(answer).get(&StoreKey::new("a"), None).await
}

#[tokio::test]
async fn a_creation_that_may_have_happened_is_ambiguous() {
    for answer in [
        error("500 Internal Server Error", "InternalError"),
        error("503 Service Unavailable", "SomethingElse"),
        error("409 Conflict", "ConditionalRequestConflict"),
        error("404 Not Found", ""),
        http("502 Bad Gateway", "", "<html>sorry</html>"),
        // It hung up without a word.
        String::new(),
    ] {
        let error = put(answer.clone()).await;
        assert!(matches!(error, StoreError::Ambiguous(_)), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn other_refusals_of_a_creation_are_what_they_say() {
    let taken = error("412 Precondition Failed", "PreconditionFailed");
    assert_eq!(put(taken).await, StoreError::AlreadyExists);
    for answer in [error("507 Insufficient Storage", "Any"), error("403 Forbidden", "QuotaExceeded")] {
        assert_eq!(put(answer).await, StoreError::NoSpace);
    }
    let body = "<Error><Code>SlowDown</Code></Error>";
    let busy = put(http("503 Slow Down", "retry-after: 7\r\n", body)).await;
    assert_eq!(busy, StoreError::Throttled { retry_after: Some(Duration::from_secs(7)) });
    for (answer, part) in [
        (error("403 Forbidden", "AccessDenied"), "AccessDenied: because"),
        (error("404 Not Found", "NoSuchBucket"), "make it first"),
        (error("301 Moved Permanently", "PermanentRedirect"), "PermanentRedirect"),
    ] {
        let error = put(answer).await;
        assert!(matches!(&error, StoreError::Denied(why) if why.contains(part)), "{error:?}");
    }
}

#[tokio::test]
async fn only_the_store_itself_can_say_that_an_object_is_absent() {
    assert_eq!(get(error("404 Not Found", "NoSuchKey")).await, Ok(None));
    for answer in [
        http("404 Not Found", "", "<html>no such page</html>"),
        error("404 Not Found", "NoSuchUpload"),
        error("500 Internal Server Error", "NoSuchKey"),
    ] {
        let error = get(answer.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_none() {
    let headers = "etag: \"1\"\r\nlast-modified: Mon, 23 Nov 2026 17:04:31 GMT\r\n";
    let whole = http("200 OK", headers, "0123456789");
    assert_eq!(get(whole.clone()).await, Ok(Some(Bytes::from_static(b"0123456789"))));
    let error = get(whole.trim_end_matches("789").to_owned()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_listing_out_of_order_is_refused() {
    let list = |names: [&str; 2]| {
        let object = |name| {
            format!(
                "<Contents><Key>site/{name}</Key><Size>1</Size>\
                 <LastModified>2026-11-23T17:04:31.000Z</LastModified></Contents>"
            )
        };
        let body = names.map(object).concat();
        http("200 OK", "", &format!("<ListBucketResult>{body}</ListBucketResult>"))
    };
    let good = store(list(["a", "b"])).list_after("", None, 9).await;
    assert_eq!(good, Ok(vec![(StoreKey::new("a"), 1), (StoreKey::new("b"), 1)]));
    let bad = store(list(["b", "a"])).list_after("", None, 9).await.unwrap_err();
    assert!(matches!(&bad, StoreError::Denied(why) if why.contains("order")), "{bad:?}");
}
