//! Oracle `secrets`, second half: no key seals two contents. Keys of objects are derived from the identity in their
//! names or clear headers, each with one nonce: two contents under one identity give both away.
//!
//! Judged from every body that leaves a host for the store, whether it arrives or not.

use super::Finding;
use std::collections::BTreeMap;

/// Where the header of a log record says its slot and its writer (`engine/docs/vault-format.md`).
const SLOT_AND_WRITER: [std::ops::Range<usize>; 2] = [48..56, 64..80];

/// What was sealed under each identity.
#[derive(Debug, Default)]
pub struct Seals(BTreeMap<String, [u8; 32]>);

impl Seals {
    /// Takes a body on its way; says what is wrong with it.
    pub fn sent(&mut self, key: &str, body: &[u8]) -> Option<Finding> {
        let identity = identity(key, body)?;
        let digest = *blake3::hash(body).as_bytes();
        let before = *self.0.entry(identity).or_insert(digest);
        (before != digest).then(|| {
            Finding::new("secrets", format!("{key}: one key seals two contents: a nonce is used twice"))
        })
    }
}

fn identity(key: &str, body: &[u8]) -> Option<String> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["g", machine, "log", _] => {
            let [slot, writer] = SLOT_AND_WRITER.map(|at| body.get(at).map(blake3::hash));
            Some(format!("{machine} {} {}", slot?, writer?))
        }
        // Their names hold the identity that the key is derived from.
        ["g", _, "seg" | "cseg" | "idx" | "fold", ..] => Some(key.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(slot: u8, writer: u8, content: u8) -> Vec<u8> {
        let mut body = vec![content; 200];
        body[SLOT_AND_WRITER[0].clone()].fill(slot);
        body[SLOT_AND_WRITER[1].clone()].fill(writer);
        body
    }

    #[test]
    fn the_same_may_be_sent_again_and_another_content_under_its_identity_may_not() {
        let mut seals = Seals::default();
        for (slot, writer, content, is_wrong) in
            [(1, 1, 1, false), (1, 1, 1, false), (1, 2, 2, false), (2, 1, 3, false), (1, 1, 4, true)]
        {
            let found = seals.sent("g/m/log/0000000000000001", &record(slot, writer, content));
            assert_eq!(found.is_some(), is_wrong, "{slot} {writer} {content}");
        }
        assert_eq!(seals.sent("g/m/seg/00000001/aa", &[1]), None);
        assert!(seals.sent("g/m/seg/00000001/aa", &[2]).is_some());
    }
}
