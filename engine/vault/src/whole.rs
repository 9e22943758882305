//! Objects that are one sealed body behind a clear header: catalogues and folds.
//!
//! The header is the body's additional data, and it tells how long the body is and how it was packed. Each object has
//! a key of its own, so that its nonce is used once.

use crate::codec::{Malformed, Put};
use crate::keys::ONCE;
use crate::shrink::{Inflater, Shrinker};
use redoubt_wire::aead::{Key, TAG_BYTES};

pub(crate) const HEADER_BYTES: usize = 128;
const RAW: u8 = 0;

/// Packs and seals a body; `header` makes the clear part of its sealed length and of its plain length with the codec.
pub(crate) fn seal(key: &Key, plain: &[u8], header: impl FnOnce(u32, u32) -> Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    let codec = Shrinker::new().put(plain, &mut body);
    let sealed = (body.len() + TAG_BYTES) as u32;
    let mut object = header(sealed, plain.len() as u32 | u32::from(codec) << 31);
    debug_assert_eq!(object.len(), HEADER_BYTES);
    let tag = key.seal(ONCE, &object, &mut body);
    object.put(&body);
    object.put(&tag);
    object
}

/// Opens the body of an object by what its header says; at most `limit` plain bytes.
pub(crate) fn open(
    key: &Key,
    bytes: &[u8],
    (sealed, packed): (u32, u32),
    limit: usize,
) -> Result<Vec<u8>, Malformed> {
    let (clear, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(Malformed("shorter than its header"))?;
    let (codec, plain) = ((packed >> 31) as u8, (packed & !(1 << 31)) as usize);
    if sealed as usize != body.len() || plain > limit {
        return Err(Malformed("the object has an impossible length"));
    }
    let (body, tag) = body.split_last_chunk::<TAG_BYTES>().ok_or(Malformed("shorter than its tag"))?;
    let mut body = body.to_vec();
    key.open(ONCE, clear, &mut body, tag).map_err(|_| Malformed("the seal is broken"))?;
    let body = match codec {
        RAW => body,
        _ => Inflater::new().open(&body, plain)?,
    };
    if body.len() == plain { Ok(body) } else { Err(Malformed("has the wrong length")) }
}
