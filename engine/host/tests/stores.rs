//! The port's promises, kept by every store we have: a directory, Azure Blob Storage's emulator, a server of
//! S3's protocol; and what each says when it is not as it should be.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use redoubt_e2e::Place;
use redoubt_e2e::servers::Server;
use redoubt_host::store::{StoreSettings, StoreUrl, open};
use redoubt_ports::conformance::store;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::cell::Cell;
use std::sync::Arc;

fn settings(url: &str, server: &Server) -> StoreSettings {
    StoreSettings {
        endpoint: Some(server.endpoint.clone()),
        credentials: Some(server.credentials.clone()),
        ..StoreSettings::new(StoreUrl::parse(url).unwrap())
    }
}

/// The suite in places that share a bucket, each below its own prefix; then in the bucket itself.
async fn conforms(server: &Server, holder: &str) {
    let url = server.holder(holder).unwrap();
    let run = Cell::new(0);
    store::run(|| async {
        run.set(run.get() + 1);
        open(&settings(&format!("{url}/site/{}", run.get()), server)).unwrap()
    })
    .await;
    let whole = open(&settings(&url, server)).unwrap();
    let names = whole.list_after("site/1", None, 1000).await.unwrap();
    assert!(names.iter().any(|(name, _)| name.as_str() == "site/1/a/b/object.1"), "{names:?}");
}

/// A name that the store does not know is absent; anything else that answers "not found" is an error.
async fn absence_is_certain(server: &Server, holder: &str) {
    let url = server.holder(holder).unwrap();
    let absent = StoreKey::new("vault");
    assert_eq!(open(&settings(&url, server)).unwrap().get(&absent, None).await, Ok(None));
    let elsewhere = open(&settings(&format!("{url}-not-made/x"), server)).unwrap();
    let denied = |error: StoreError| {
        assert!(matches!(&error, StoreError::Denied(why) if why.contains("make it first")), "{error}");
    };
    denied(elsewhere.get(&absent, None).await.unwrap_err());
    denied(elsewhere.put_if_absent(&absent, Bytes::from_static(b"x")).await.unwrap_err());
    denied(elsewhere.list_after("", None, 9).await.unwrap_err());
}

#[tokio::test]
async fn a_directory_keeps_the_promises_of_a_store() {
    let places = Cell::new(Vec::new());
    store::run(|| async {
        let place = Place::new();
        let url = StoreUrl::parse(&format!("file://{}", place.path(".").display())).unwrap();
        let opened = open(&StoreSettings::new(url)).unwrap();
        let mut kept = places.take();
        kept.push(place);
        places.set(kept);
        opened
    })
    .await;
}

#[tokio::test]
async fn azure_keeps_the_promises_of_a_store() {
    let place = Place::new();
    let server = Server::azurite(&place).unwrap();
    conforms(&server, "vaults").await;
    absence_is_certain(&server, "others").await;
    // The same name, told that it is somebody else.
    let wrong = place.path("wrong.credentials");
    let text = std::fs::read_to_string(&server.credentials).unwrap();
    std::fs::copy(&server.credentials, &wrong).unwrap();
    std::fs::write(&wrong, text.replace("ACCOUNT_KEY=Eby8", "ACCOUNT_KEY=AAAA")).unwrap();
    let settings = StoreSettings { credentials: Some(wrong), ..settings("az://vaults", &server) };
    let error = open(&settings).unwrap().get(&StoreKey::new("vault"), None).await.unwrap_err();
    assert!(matches!(&error, StoreError::Denied(why) if why.contains("status 403")), "{error}");
}

#[tokio::test]
async fn a_server_of_s3_keeps_the_promises_of_a_store() {
    let place = Place::new();
    let server = Server::moto(&place).unwrap();
    conforms(&server, "vaults").await;
    absence_is_certain(&server, "others").await;
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unavailable_at_once() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let file = place.path("credentials");
    std::fs::write(&file, "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=hush\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let settings = StoreSettings {
        endpoint: Some(format!("http://{address}")),
        credentials: Some(file.clone()),
        ..StoreSettings::new(StoreUrl::parse("s3://bucket").unwrap())
    };
    let store: Arc<dyn RawStore> = open(&settings).unwrap();
    let error = store.put_if_absent(&StoreKey::new("a"), Bytes::new()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("cannot connect")), "{error}");
    std::fs::write(&file, "AWS_SECRT_ACCESS_KEY=hush\n").unwrap();
    let error = open(&settings).err().unwrap().to_string();
    assert!(error.contains("aws_secrt_access_key") && error.contains("s3://bucket"), "{error}");
    assert!(!error.contains("hush") && !format!("{settings:?}").contains("hush"));
}
