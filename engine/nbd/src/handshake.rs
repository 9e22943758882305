//! The handshake: from the greeting to the first request.
//!
//! - HS-1 An option that is not known, or not wanted (TLS, 64-bit headers), is refused and the next
//!   one is read.
//! - HS-2 A context counts only for the export it was selected for, and only if the last selection
//!   succeeded after structured replies were agreed.
//! - HS-3 While the caller owes an answer ([`Step::Lookup`], [`Step::List`]) no input is consumed.
//!
//! The caller looks exports up, because that may take time: `step` says what it wants to know.

use crate::options::{InfoBody, MetaBody, string};
use crate::proto::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, GREETING_MAGIC, MAX_DRAIN_BYTES, MAX_OPTION_BYTES, MAX_OPTIONS,
    MAX_PAYLOAD_BYTES, MAX_STRING_BYTES, OPTION_BYTES, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    PREFERRED_BLOCK_BYTES, flag, info, opt, rep, tx,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What the handshake has to know of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFacts {
    /// Size now, in bytes.
    pub size_bytes: u64,
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether a flush on one connection covers writes answered on every other one.
    pub can_multi_conn: bool,
    /// Whether trim is offered.
    pub can_trim: bool,
    /// A line for people.
    pub description: Option<String>,
}

impl ExportFacts {
    /// Returns the transmission flags to offer (NBD-3).
    pub fn flags(&self, structured: bool) -> u16 {
        let mut flags = tx::HAS_FLAGS | tx::SEND_FLUSH | tx::SEND_FUA | tx::SEND_CACHE;
        let mut set = |on: bool, bits: u16| flags |= if on { bits } else { 0 };
        set(self.read_only, tx::READ_ONLY);
        set(!self.read_only, tx::SEND_WRITE_ZEROES | tx::SEND_FAST_ZERO);
        set(!self.read_only && self.can_trim, tx::SEND_TRIM);
        set(self.can_multi_conn, tx::CAN_MULTI_CONN);
        set(structured, tx::SEND_DF);
        flags
    }
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The export's name as the client gave it.
    pub export: String,
    /// Whether replies to reads are structured.
    pub structured: bool,
    /// Whether `base:allocation` may be asked for.
    pub allocation_context: bool,
}

/// What the caller does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what is in the output, and come back with more input.
    NeedInput,
    /// Look the export up and call [`Handshake::looked_up`].
    Lookup(String),
    /// Gather the names and call [`Handshake::listed`].
    List,
    /// Send what is in the output and go on with requests.
    Transmit(Negotiated),
    /// Send what is in the output and close.
    Close,
}

#[derive(Debug)]
enum Asked {
    ExportName(String),
    Info { go: bool, body: InfoBody },
    Meta { set: bool, body: MetaBody },
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Option,
    /// The rest of an option that is too long, to be answered with a refusal.
    Skip {
        option: u32,
        left: u32,
    },
    Lookup(Asked),
    List,
    Done(Negotiated),
    Closed,
}

/// One client's handshake.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    options: u32,
    fixed: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was selected.
    context_for: Option<String>,
}

impl Handshake {
    /// Starts a handshake and writes the greeting.
    pub fn new(out: &mut BytesMut) -> Handshake {
        out.put_u64(GREETING_MAGIC);
        out.put_u64(OPTION_MAGIC);
        out.put_u16(flag::FIXED_NEWSTYLE | flag::NO_ZEROES);
        Handshake {
            state: State::ClientFlags,
            options: 0,
            fixed: false,
            no_zeroes: false,
            structured: false,
            context_for: None,
        }
    }

    /// Consumes input until something is wanted from the caller.
    pub fn step(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Step {
        loop {
            let went_on = match &mut self.state {
                State::ClientFlags => self.client_flags(input),
                State::Option => self.option(input, out),
                State::Skip { option, left } => {
                    let here = (*left).min(u32::try_from(input.len()).unwrap_or(u32::MAX));
                    input.advance(here as usize);
                    *left -= here;
                    let (option, done) = (*option, *left == 0);
                    if done {
                        refuse(out, option, rep::ERR_TOO_BIG);
                        self.state = State::Option;
                    }
                    done
                }
                State::Lookup(asked) => return Step::Lookup(asked.name().to_owned()),
                State::List => return Step::List,
                State::Done(negotiated) => return Step::Transmit(negotiated.clone()),
                State::Closed => return Step::Close,
            };
            if !went_on {
                return Step::NeedInput;
            }
        }
    }

    /// Answers [`Step::Lookup`]; `None`: there is no such export.
    pub fn looked_up(&mut self, facts: Option<&ExportFacts>, out: &mut BytesMut) {
        let State::Lookup(asked) = std::mem::replace(&mut self.state, State::Option) else {
            debug_assert!(false, "HS-3: nobody asked for an export");
            return;
        };
        match asked {
            Asked::ExportName(name) => self.answer_export_name(name, facts, out),
            Asked::Info { go, body } => self.answer_info(go, body, facts, out),
            Asked::Meta { set, body } => self.answer_meta(set, body, facts.is_some(), out),
        }
    }

    /// Answers [`Step::List`]. Names longer than the protocol allows are left out.
    pub fn listed(&mut self, names: &[String], out: &mut BytesMut) {
        debug_assert!(matches!(self.state, State::List), "HS-3: nobody asked for the names");
        for name in names.iter().filter(|name| name.len() <= MAX_STRING_BYTES) {
            let mut body = BytesMut::with_capacity(4 + name.len());
            body.put_u32(u32::try_from(name.len()).unwrap_or(0));
            body.put_slice(name.as_bytes());
            answer(out, opt::LIST, rep::SERVER, &body);
        }
        answer(out, opt::LIST, rep::ACK, &[]);
        self.state = State::Option;
    }

    fn client_flags(&mut self, input: &mut BytesMut) -> bool {
        if input.len() < 4 {
            return false;
        }
        let flags = input.get_u32();
        let known = u32::from(flag::FIXED_NEWSTYLE | flag::NO_ZEROES);
        self.fixed = flags & u32::from(flag::FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(flag::NO_ZEROES) != 0;
        self.state = if flags & !known == 0 { State::Option } else { State::Closed };
        true
    }

    fn option(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> bool {
        if input.len() < OPTION_BYTES {
            return false;
        }
        let mut header = &input[..OPTION_BYTES];
        let (magic, option, length) = (header.get_u64(), header.get_u32(), header.get_u32());
        // A client of the old kind knows one option only, and no refusals.
        let understood = magic == OPTION_MAGIC && (self.fixed || option == opt::EXPORT_NAME);
        if !understood || self.options == MAX_OPTIONS {
            self.state = State::Closed;
            return true;
        }
        if length > MAX_OPTION_BYTES {
            // `EXPORT_NAME` has no refusal; what is too long to be drained ends the connection.
            let hopeless = option == opt::EXPORT_NAME || length > MAX_DRAIN_BYTES;
            self.state = if hopeless { State::Closed } else { State::Skip { option, left: length } };
            input.advance(OPTION_BYTES);
            self.options += 1;
            return true;
        }
        if input.len() < OPTION_BYTES + length as usize {
            return false;
        }
        input.advance(OPTION_BYTES);
        self.options += 1;
        let body = input.split_to(length as usize).freeze();
        if let Err(refusal) = self.take_option(option, body, out) {
            refuse(out, option, refusal);
        }
        true
    }

    fn take_option(&mut self, option: u32, body: Bytes, out: &mut BytesMut) -> Result<(), u32> {
        let bare = if body.is_empty() { Ok(()) } else { Err(rep::ERR_INVALID) };
        self.state = match option {
            opt::EXPORT_NAME => match string(&body) {
                Ok(name) => State::Lookup(Asked::ExportName(name)),
                Err(_) => State::Closed,
            },
            opt::ABORT => {
                answer(out, option, rep::ACK, &[]);
                State::Closed
            }
            opt::LIST => {
                bare?;
                State::List
            }
            opt::STRUCTURED_REPLY => {
                bare?;
                self.structured = true;
                answer(out, option, rep::ACK, &[]);
                State::Option
            }
            opt::INFO | opt::GO => {
                let body = InfoBody::parse(body)?;
                State::Lookup(Asked::Info { go: option == opt::GO, body })
            }
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => {
                let set = option == opt::SET_META_CONTEXT;
                if set {
                    // HS-2: a failed selection leaves nothing selected.
                    self.context_for = None;
                }
                let body = MetaBody::parse(body)?;
                if !self.structured {
                    return Err(rep::ERR_INVALID);
                }
                State::Lookup(Asked::Meta { set, body })
            }
            _ => return Err(rep::ERR_UNSUP),
        };
        Ok(())
    }

    fn answer_export_name(&mut self, name: String, facts: Option<&ExportFacts>, out: &mut BytesMut) {
        let Some(facts) = facts else {
            // This option cannot be refused: the protocol asks to drop the connection.
            self.state = State::Closed;
            return;
        };
        out.put_u64(facts.size_bytes);
        out.put_u16(facts.flags(self.structured));
        if !self.no_zeroes {
            out.put_bytes(0, 124);
        }
        self.state = State::Done(self.agreed(name));
    }

    fn answer_info(&mut self, go: bool, body: InfoBody, facts: Option<&ExportFacts>, out: &mut BytesMut) {
        let option = if go { opt::GO } else { opt::INFO };
        let Some(facts) = facts else {
            refuse(out, option, rep::ERR_UNKNOWN);
            return;
        };
        let mut export = BytesMut::with_capacity(12);
        export.put_u16(info::EXPORT);
        export.put_u64(facts.size_bytes);
        export.put_u16(facts.flags(self.structured));
        answer(out, option, rep::INFO, &export);
        if body.wanted.contains(&info::NAME) {
            answer_text(out, option, info::NAME, &body.name);
        }
        if let Some(text) = facts.description.as_deref().filter(|_| body.wanted.contains(&info::DESCRIPTION))
            && text.len() <= MAX_STRING_BYTES
        {
            answer_text(out, option, info::DESCRIPTION, text);
        }
        if body.wanted.contains(&info::BLOCK_SIZE) {
            let mut sizes = BytesMut::with_capacity(14);
            sizes.put_u16(info::BLOCK_SIZE);
            sizes.put_u32(1);
            sizes.put_u32(PREFERRED_BLOCK_BYTES);
            sizes.put_u32(MAX_PAYLOAD_BYTES);
            answer(out, option, rep::INFO, &sizes);
        }
        answer(out, option, rep::ACK, &[]);
        if go {
            self.state = State::Done(self.agreed(body.name));
        }
    }

    fn answer_meta(&mut self, set: bool, body: MetaBody, exists: bool, out: &mut BytesMut) {
        let option = if set { opt::SET_META_CONTEXT } else { opt::LIST_META_CONTEXT };
        if !exists {
            refuse(out, option, rep::ERR_UNKNOWN);
            return;
        }
        let wildcard = |query: &str| !set && query == "base:";
        let matched = body.queries.iter().any(|query| query == BASE_ALLOCATION || wildcard(query))
            || (!set && body.queries.is_empty());
        if matched {
            let mut context = BytesMut::with_capacity(4 + BASE_ALLOCATION.len());
            context.put_u32(if set { BASE_ALLOCATION_ID } else { 0 });
            context.put_slice(BASE_ALLOCATION.as_bytes());
            answer(out, option, rep::META_CONTEXT, &context);
        }
        answer(out, option, rep::ACK, &[]);
        if set && matched {
            self.context_for = Some(body.name);
        }
    }

    fn agreed(&self, export: String) -> Negotiated {
        let allocation_context = self.context_for.as_deref() == Some(export.as_str());
        debug_assert!(!allocation_context || self.structured, "HS-2: a context needs structured replies");
        Negotiated { export, structured: self.structured, allocation_context }
    }
}

impl Asked {
    fn name(&self) -> &str {
        match self {
            Asked::ExportName(name) => name,
            Asked::Info { body, .. } => &body.name,
            Asked::Meta { body, .. } => &body.name,
        }
    }
}

fn answer(out: &mut BytesMut, option: u32, kind: u32, body: &[u8]) {
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(u32::try_from(body.len()).unwrap_or(0));
    out.put_slice(body);
}

fn answer_text(out: &mut BytesMut, option: u32, kind: u16, text: &str) {
    let mut body = BytesMut::with_capacity(2 + text.len());
    body.put_u16(kind);
    body.put_slice(text.as_bytes());
    answer(out, option, rep::INFO, &body);
}

fn refuse(out: &mut BytesMut, option: u32, code: u32) {
    let text = match code {
        rep::ERR_UNSUP => "this option is not supported",
        rep::ERR_INVALID => "the option is malformed or comes too early",
        rep::ERR_UNKNOWN => "there is no export of this name",
        _ => "the option is too long",
    };
    answer(out, option, code, text.as_bytes());
}
