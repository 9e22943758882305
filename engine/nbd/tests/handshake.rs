//! The handshake, option by option, as a client sees it.
#![allow(missing_docs)]

use bytes::{Buf, BufMut, BytesMut};
use redoubt_nbd::client::{OptionReply, encode_option, info_body, meta_body, parse_option_reply};
use redoubt_nbd::proto::{self, flag, info, opt, rep, tx};
use redoubt_nbd::{ExportFacts, Handshake, Negotiated, Step};

struct Client {
    handshake: Handshake,
    input: BytesMut,
    out: BytesMut,
    exports: Vec<(&'static str, ExportFacts)>,
}

fn facts() -> ExportFacts {
    ExportFacts {
        size_bytes: 1 << 20,
        read_only: false,
        can_multi_conn: false,
        can_trim: true,
        description: Some("a disk".to_owned()),
    }
}

impl Client {
    fn with_flags(flags: u32) -> Client {
        let mut out = BytesMut::new();
        let handshake = Handshake::new(&mut out);
        assert_eq!(out.len(), 18, "the greeting");
        out.clear();
        let mut input = BytesMut::new();
        input.put_u32(flags);
        let other = ExportFacts { description: None, ..facts() };
        Client { handshake, input, out, exports: vec![("", facts()), ("other", other)] }
    }

    fn new() -> Client {
        Client::with_flags(u32::from(flag::FIXED_NEWSTYLE | flag::NO_ZEROES))
    }

    fn step(&mut self) -> Step {
        loop {
            match self.handshake.step(&mut self.input, &mut self.out) {
                Step::Lookup(name) => {
                    let found = self.exports.iter().find(|(known, _)| *known == name);
                    self.handshake.looked_up(found.map(|(_, facts)| facts), &mut self.out);
                }
                Step::List => {
                    let names: Vec<_> = self.exports.iter().map(|(name, _)| (*name).to_owned()).collect();
                    self.handshake.listed(&names, &mut self.out);
                }
                step => return step,
            }
        }
    }

    /// Sends an option and returns what follows, and the replies as (type, body).
    fn ask(&mut self, option: u32, body: &[u8]) -> (Step, Vec<(u32, Vec<u8>)>) {
        encode_option(&mut self.input, option, body);
        let step = self.step();
        let mut replies = Vec::new();
        while let Some(OptionReply { option: to, kind, body }) = parse_option_reply(&mut self.out).unwrap() {
            assert_eq!(to, option);
            replies.push((kind, body.to_vec()));
        }
        assert!(self.out.is_empty());
        (step, replies)
    }

    fn refusal(&mut self, option: u32, body: &[u8]) -> u32 {
        let (step, replies) = self.ask(option, body);
        assert_eq!((step, replies.len()), (Step::NeedInput, 1));
        replies[0].0
    }

    fn go(&mut self, name: &str) -> Negotiated {
        match self.ask(opt::GO, &info_body(name, &[])).0 {
            Step::Transmit(agreed) => agreed,
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn the_greeting_offers_fixed_newstyle() {
    let mut out = BytesMut::new();
    let _ = Handshake::new(&mut out);
    insta::assert_snapshot!(hex(&out), @"4e42444d4147494349484156454f50540003");
}

#[test]
fn unknown_client_flags_end_the_connection() {
    assert_eq!(Client::with_flags(5).step(), Step::Close);
}

#[test]
fn a_client_of_the_old_kind_may_only_name_an_export() {
    let mut client = Client::with_flags(0);
    assert_eq!(client.ask(opt::LIST, &[]).0, Step::Close);
}

#[test]
fn an_export_name_is_answered_with_padding_unless_the_client_said_no() {
    for (flags, length) in [(1, 10 + 124), (3, 10)] {
        let mut client = Client::with_flags(flags);
        encode_option(&mut client.input, opt::EXPORT_NAME, b"other");
        assert!(matches!(client.step(), Step::Transmit(agreed) if agreed.export == "other"));
        assert_eq!(client.out.len(), length);
        assert_eq!(client.out.get_u64(), 1 << 20);
    }
}

#[test]
fn an_unknown_export_name_ends_the_connection() {
    assert_eq!(Client::new().ask(opt::EXPORT_NAME, b"nothing").0, Step::Close);
    assert_eq!(Client::new().ask(opt::EXPORT_NAME, &[b'x'; 4097]).0, Step::Close);
}

#[test]
fn abort_is_acknowledged_then_the_connection_ends() {
    assert_eq!(Client::new().ask(opt::ABORT, &[]), (Step::Close, vec![(rep::ACK, vec![])]));
}

#[test]
fn all_names_are_listed() {
    let (step, replies) = Client::new().ask(opt::LIST, &[]);
    assert_eq!(step, Step::NeedInput);
    let named = |name: &[u8]| [&u32::try_from(name.len()).unwrap().to_be_bytes()[..], name].concat();
    assert_eq!(replies, [(rep::SERVER, named(b"")), (rep::SERVER, named(b"other")), (rep::ACK, vec![])]);
    assert_eq!(Client::new().refusal(opt::LIST, b"x"), rep::ERR_INVALID);
}

#[test]
fn what_is_unknown_or_unwanted_is_refused_and_the_next_option_is_read() {
    let mut client = Client::new();
    for option in [0, 4, opt::STARTTLS, opt::EXTENDED_HEADERS, 12, 0xffff_ffff] {
        assert_eq!(client.refusal(option, b"whatever"), rep::ERR_UNSUP, "option {option}");
    }
    assert_eq!(client.go("").export, "");
}

#[test]
fn an_option_too_long_to_take_is_skipped_and_refused() {
    let mut client = Client::new();
    assert_eq!(client.refusal(opt::GO, &vec![0; 1 << 20]), rep::ERR_TOO_BIG);
    assert!(!client.go("").structured);
}

#[test]
fn an_option_too_long_to_skip_ends_the_connection() {
    let mut client = Client::new();
    client.input.put_u64(proto::OPTION_MAGIC);
    client.input.put_u32(opt::GO);
    client.input.put_u32(u32::MAX);
    assert_eq!(client.step(), Step::Close);
}

#[test]
fn a_wrong_magic_ends_the_connection() {
    let mut client = Client::new();
    client.input.put_bytes(b'G', 16);
    assert_eq!(client.step(), Step::Close);
}

#[test]
fn go_and_info_tell_what_was_asked() {
    let (step, replies) = {
        let mut client = Client::new();
        client.ask(opt::INFO, &info_body("", &[info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 77]))
    };
    assert_eq!(step, Step::NeedInput);
    let lines: Vec<_> = replies.iter().map(|(kind, body)| format!("{kind} {}", hex(body))).collect();
    insta::assert_snapshot!(lines.join("\n"));
    let (step, replies) = Client::new().ask(opt::GO, &info_body("other", &[info::DESCRIPTION]));
    assert!(matches!(step, Step::Transmit(_)));
    assert_eq!(replies.iter().map(|reply| reply.0).collect::<Vec<_>>(), [rep::INFO, rep::ACK]);
}

#[test]
fn an_unknown_export_is_refused_and_another_may_be_asked_for() {
    let mut client = Client::new();
    assert_eq!(client.refusal(opt::INFO, &info_body("nothing", &[])), rep::ERR_UNKNOWN);
    assert_eq!(client.refusal(opt::GO, &info_body("nothing", &[])), rep::ERR_UNKNOWN);
    assert_eq!(client.go("other").export, "other");
}

#[test]
fn lengths_that_do_not_fit_are_invalid() {
    let mut client = Client::new();
    let whole = info_body("other", &[info::NAME]);
    for cut in 0..whole.len() {
        assert_eq!(client.refusal(opt::GO, &whole[..cut]), rep::ERR_INVALID, "{cut} bytes");
    }
    let mut longer = whole;
    longer.put_u8(0);
    assert_eq!(client.refusal(opt::GO, &longer), rep::ERR_INVALID);
    assert_eq!(client.refusal(opt::GO, &info_body(&"n".repeat(4097), &[])), rep::ERR_TOO_BIG);
    assert_eq!(client.refusal(opt::GO, &[0, 0, 0, 1, 0xff, 0, 0]), rep::ERR_INVALID);
}

#[test]
fn contexts_need_structured_replies_first() {
    let mut client = Client::new();
    let body = meta_body("", &["base:allocation"]);
    assert_eq!(client.refusal(opt::SET_META_CONTEXT, &body), rep::ERR_INVALID);
    assert_eq!(client.refusal(opt::STRUCTURED_REPLY, b"x"), rep::ERR_INVALID);
    assert_eq!(client.refusal(opt::STRUCTURED_REPLY, b""), rep::ACK);
    let (_, replies) = client.ask(opt::SET_META_CONTEXT, &body);
    assert_eq!(replies[0], (rep::META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec()));
    let agreed = client.go("");
    assert!(agreed.structured && agreed.allocation_context);
}

#[test]
fn a_context_counts_only_for_its_export_and_only_if_the_last_selection_succeeded() {
    let ready = || {
        let mut client = Client::new();
        client.ask(opt::STRUCTURED_REPLY, b"");
        client.ask(opt::SET_META_CONTEXT, &meta_body("other", &["base:allocation"]));
        client
    };
    assert!(ready().go("other").allocation_context);
    assert!(!ready().go("").allocation_context);
    let mut client = ready();
    client.ask(opt::SET_META_CONTEXT, &meta_body("nothing", &["base:allocation"]));
    assert!(!client.go("other").allocation_context);
    let mut client = ready();
    client.ask(opt::SET_META_CONTEXT, b"garbage");
    assert!(!client.go("other").allocation_context);
    let mut client = ready();
    client.ask(opt::SET_META_CONTEXT, &meta_body("other", &["qemu:dirty-bitmap:x"]));
    assert!(!client.go("other").allocation_context);
}

#[test]
fn contexts_are_listed_for_all_and_for_their_name_space() {
    let mut client = Client::new();
    client.ask(opt::STRUCTURED_REPLY, b"");
    let cases = [(vec![], 2), (vec!["base:"], 2), (vec!["base:allocation"], 2), (vec!["x-other:"], 1)];
    for (queries, replies) in cases {
        assert_eq!(
            client.ask(opt::LIST_META_CONTEXT, &meta_body("", &queries)).1.len(),
            replies,
            "{queries:?}"
        );
    }
    let long = "q".repeat(4097);
    assert_eq!(client.refusal(opt::LIST_META_CONTEXT, &meta_body("", &[&long])), rep::ERR_TOO_BIG);
}

#[test]
fn nothing_is_offered_that_the_export_does_not_have() {
    let bits = |facts: &ExportFacts| facts.flags(false);
    assert_eq!(bits(&facts()) & (tx::CAN_MULTI_CONN | tx::SEND_DF | tx::READ_ONLY), 0);
    assert_ne!(facts().flags(true) & tx::SEND_DF, 0);
    assert_ne!(bits(&ExportFacts { can_multi_conn: true, ..facts() }) & tx::CAN_MULTI_CONN, 0);
    assert_eq!(bits(&ExportFacts { can_trim: false, ..facts() }) & tx::SEND_TRIM, 0);
    let read_only = bits(&ExportFacts { read_only: true, ..facts() });
    assert_eq!(read_only & (tx::SEND_TRIM | tx::SEND_WRITE_ZEROES | tx::SEND_FAST_ZERO), 0);
}

#[test]
fn a_handshake_in_single_bytes_is_the_same() {
    let mut client = Client::new();
    let mut wire = std::mem::take(&mut client.input);
    encode_option(&mut wire, opt::STRUCTURED_REPLY, b"");
    encode_option(&mut wire, opt::SET_META_CONTEXT, &meta_body("other", &["base:allocation"]));
    encode_option(&mut wire, opt::GO, &info_body("other", &[info::BLOCK_SIZE]));
    let mut last = Step::NeedInput;
    for byte in &wire[..] {
        assert_eq!(last, Step::NeedInput);
        client.input.put_u8(*byte);
        last = client.step();
    }
    assert!(matches!(last, Step::Transmit(agreed) if agreed.allocation_context));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
