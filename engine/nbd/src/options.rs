//! Bodies of the options that carry more than nothing. Every length is checked against the bytes
//! that are there; strings are bounded by [`MAX_STRING_BYTES`] and are UTF-8.

use crate::proto::{MAX_QUERIES, MAX_STRING_BYTES, rep};
use bytes::{Buf, Bytes};

/// The code of the refusal to send.
pub(crate) type Refusal = u32;

/// Body of `INFO` and `GO`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InfoBody {
    pub(crate) name: String,
    pub(crate) wanted: Vec<u16>,
}

/// Body of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MetaBody {
    pub(crate) name: String,
    pub(crate) queries: Vec<String>,
}

/// Turns bytes into a name or a query.
pub(crate) fn string(bytes: &[u8]) -> Result<String, Refusal> {
    if bytes.len() > MAX_STRING_BYTES {
        return Err(rep::ERR_TOO_BIG);
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| rep::ERR_INVALID)
}

fn counted_string(body: &mut Bytes) -> Result<String, Refusal> {
    let length = body.try_get_u32().map_err(|_| rep::ERR_INVALID)? as usize;
    if length > body.len() {
        return Err(rep::ERR_INVALID);
    }
    string(&body.split_to(length))
}

impl InfoBody {
    pub(crate) fn parse(mut body: Bytes) -> Result<InfoBody, Refusal> {
        let name = counted_string(&mut body)?;
        let count = usize::from(body.try_get_u16().map_err(|_| rep::ERR_INVALID)?);
        if body.len() != count * 2 {
            return Err(rep::ERR_INVALID);
        }
        let wanted = (0..count).map(|_| body.get_u16()).collect();
        Ok(InfoBody { name, wanted })
    }
}

impl MetaBody {
    pub(crate) fn parse(mut body: Bytes) -> Result<MetaBody, Refusal> {
        let name = counted_string(&mut body)?;
        let count = body.try_get_u32().map_err(|_| rep::ERR_INVALID)?;
        if count > MAX_QUERIES {
            return Err(rep::ERR_TOO_BIG);
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(counted_string(&mut body)?);
        }
        if !body.is_empty() {
            return Err(rep::ERR_INVALID);
        }
        Ok(MetaBody { name, queries })
    }
}
