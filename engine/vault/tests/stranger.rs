//! A reader written from `engine/docs/vault-format.md` alone: it shares no code with the vault, so what the
//! document says is what the bytes are.

mod support;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use redoubt_vault::{MachineWriter, MemStore, Vault, VaultKeys};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::model::{MACHINE, Shape, history, position, settings};
use support::{Oracle, Seeded, run};

type Objects = BTreeMap<String, Vec<u8>>;
type Key = [u8; 32];
/// Images of a machine's volumes, by ordinal.
type Images = BTreeMap<u16, Vec<u8>>;

/// Fields from the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn raw(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn le(&mut self, length: usize) -> u64 {
        self.raw(length).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn varint(&mut self) -> u64 {
        let byte = self.le(1);
        if byte < 128 { byte } else { (byte - 128) | (self.varint() << 7) }
    }

    fn skip(&mut self, magic: &[u8]) {
        assert_eq!(self.raw(magic.len()), magic);
        assert_eq!((self.le(2), self.le(2)), (1, 0), "version 1.0");
    }

    fn volumes(&mut self) -> BTreeMap<u16, u64> {
        let mut sizes = BTreeMap::new();
        for _ in 0..self.le(2) {
            let ordinal = self.le(2) as u16;
            self.raw(16);
            sizes.insert(ordinal, self.le(8));
        }
        sizes
    }
}

fn derive(key: &[u8], salt: &[u8], purpose: &[&[u8]]) -> Key {
    let info: Vec<u8> =
        purpose.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes(), *part].concat()).collect();
    let mut derived = [0; 32];
    hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), key).expand(&info, &mut derived).unwrap();
    derived
}

fn unseal(key: &Key, number: u32, additional: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (body, tag) = sealed.split_last_chunk::<16>().unwrap();
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    let mut plain = body.to_vec();
    let cipher = Aes256Gcm::new(key.into());
    cipher
        .decrypt_inout_detached(
            &Nonce::from(nonce),
            additional,
            plain.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .unwrap();
    plain
}

fn checked(bytes: &[u8]) -> &[u8] {
    let (body, crc) = bytes.split_last_chunk::<4>().unwrap();
    assert_eq!(crc32c::crc32c(body), u32::from_le_bytes(*crc));
    body
}

/// What a reader needs to know of a vault and one of its machines.
struct Opened {
    vault: Vec<u8>,
    machine: Vec<u8>,
    data_key: Key,
}

fn open(objects: &Objects, vault_key: &Key, machine: &str) -> Opened {
    let mut object = Fields(checked(&objects["vault"]));
    object.skip(b"DRVAULT1");
    assert_eq!(object.le(8), 0, "no required features");
    object.le(8);
    let vault = object.raw(16).to_vec();
    assert_eq!(object.raw(16), &derive(vault_key, &vault, &[b"drv1 check"])[..16], "the right key");

    let wrapped = checked(&objects[&format!("g/{machine}/key/00000001")]);
    let mut object = Fields(wrapped);
    object.skip(b"DRKEY1\0\0");
    assert_eq!(object.le(4), 1);
    assert_eq!(object.raw(16), vault);
    let (machine, wrap) = (object.raw(16).to_vec(), object.raw(16));
    let wrapping = derive(vault_key, wrap, &[b"drv1 wrap"]);
    let data_key = unseal(&wrapping, 0, &wrapped[..64], object.0).try_into().unwrap();
    Opened { vault, machine, data_key }
}

struct Segment {
    uuid: Vec<u8>,
    bytes: Vec<u8>,
    table: usize,
    units: usize,
    root: Vec<u8>,
}

/// A commit: its segments, and its points with sequence and sizes.
struct Record {
    segments: Vec<Segment>,
    points: Vec<(u64, BTreeMap<u16, u64>)>,
}

fn record(objects: &Objects, at: &Opened, machine: &str, slot: u64, bytes: &[u8], prev: &[u8]) -> Record {
    let header = &bytes[..144];
    let mut fields = Fields(checked(header));
    fields.skip(b"DRLOG1\0\0");
    fields.raw(4);
    assert_eq!((fields.raw(16), fields.raw(16)), (&at.vault[..], &at.machine[..]));
    assert_eq!(fields.le(8), slot);
    let (epoch, writer) = (fields.le(8), fields.raw(16));
    assert_eq!(fields.raw(32), prev, "the chain");
    assert_eq!(fields.le(4), 1);
    let body = fields.le(4) as usize;
    let salt = [&at.machine[..], &slot.to_le_bytes(), writer].concat();
    let key = derive(&at.data_key, &salt, &[b"drv1 log", &at.vault]);
    let plain = unseal(&key, 0, header, &bytes[144..144 + body]);

    let mut fields = Fields(&plain);
    fields.raw(8 + 48 + 2);
    fields.volumes();
    let mut points = Vec::new();
    for _ in 0..fields.le(2) {
        fields.raw(16 + 1 + 8);
        let seq = fields.le(8);
        assert_eq!(fields.le(1), 1, "an exact point");
        points.push((seq, fields.volumes()));
    }
    let mut segments = Vec::new();
    for _ in 0..fields.le(2) {
        let (uuid, length) = (fields.raw(16).to_vec(), fields.le(8) as usize);
        let (table, units) = (fields.le(8) as usize, fields.le(4) as usize);
        let (root, digest, is_inline) = (fields.raw(32).to_vec(), fields.raw(32), fields.le(1) == 1);
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = match is_inline {
            true => bytes[144 + body..].to_vec(),
            false => objects[&format!("g/{machine}/seg/{epoch:08x}/{hex}")].clone(),
        };
        assert_eq!((bytes.len(), blake3::hash(&bytes).as_bytes().as_slice()), (length, digest));
        segments.push(Segment { uuid, bytes, table, units, root });
    }
    assert!(fields.0.is_empty());
    Record { segments, points }
}

/// Hands out the rows of a segment: volume, span, first sector, sectors, content.
fn rows(at: &Opened, segment: &Segment, mut each: impl FnMut(u16, u64, u64, u64, Option<&[u8]>)) {
    let key = derive(&at.data_key, &segment.uuid, &[b"drv1 seg", &at.vault, &at.machine]);
    let unit = |number: u32, plain: u32, codec: u8, sealed: &[u8]| {
        let additional = [
            &segment.uuid[..],
            &number.to_le_bytes(),
            &plain.to_le_bytes(),
            &[codec],
            &at.machine,
            &1u16.to_le_bytes(),
        ];
        let body = unseal(&key, number, &additional.concat(), sealed);
        let body = if codec == 1 { zstd::decode_all(&body[..]).unwrap() } else { body };
        assert_eq!(body.len(), plain as usize);
        body
    };
    let trailer = segment.bytes.len() - 64;
    checked(&segment.bytes[trailer..trailer + 60]);
    let mut fields = Fields(&segment.bytes[trailer..]);
    assert_eq!((fields.le(8) as usize, fields.le(4) as usize), (segment.table, segment.units));
    let (sealed, packed, root) = (fields.le(4) as usize, fields.le(4) as u32, fields.raw(32));
    assert_eq!(&segment.bytes[trailer + 60..], b"DRSE");
    let digest = blake3::Hasher::new()
        .update(&segment.bytes[..128])
        .update(&segment.bytes[segment.table..trailer])
        .finalize();
    assert_eq!((root, digest.as_bytes().as_slice()), (&segment.root[..], &segment.root[..]));

    let (mut units, mut start) = (Vec::new(), 128);
    let mut table = Fields(&segment.bytes[segment.table..]);
    for number in 0..segment.units as u32 {
        let (length, packed, crc) = (table.le(4) as usize, table.le(4) as u32, table.le(4) as u32);
        let bytes = &segment.bytes[start..start + length];
        assert_eq!(crc32c::crc32c(bytes), crc);
        units.push(unit(number, packed & 0xff_ffff, (packed >> 24) as u8, bytes));
        start += length;
    }
    assert_eq!(start, segment.table);
    let plain = unit(0x8000_0000, packed & 0x7fff_ffff, (packed >> 31) as u8, &table.0[..sealed]);
    let (mut fields, mut last) = (Fields(&plain), 0i64);
    while !fields.0.is_empty() {
        let (volume, span, zigzag) = (fields.varint() as u16, fields.varint(), fields.varint());
        let first = last + ((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        let sectors = fields.varint();
        last = first + sectors as i64;
        let content = match fields.le(1) {
            0 => None,
            _ => {
                let (unit, offset) = (&units[fields.varint() as usize], fields.le(1) as usize * 512);
                Some(&unit[offset..offset + sectors as usize * 512])
            }
        };
        each(volume, span, first as u64, sectors, content);
    }
}

/// Reads every point of the machine, by sequence.
fn points(objects: &Objects, vault_key: &Key, machine: &str) -> BTreeMap<u64, Images> {
    let at = open(objects, vault_key, machine);
    let (mut state, mut prev, mut found) = (Images::new(), vec![0; 32], BTreeMap::new());
    let log = format!("g/{machine}/log/");
    for (bytes, slot) in objects.range(log.clone()..).take_while(|(name, _)| name.starts_with(&log)).zip(1..)
    {
        assert_eq!(*bytes.0, format!("{log}{slot:016x}"));
        let record = record(objects, &at, machine, slot, bytes.1, &prev);
        prev = blake3::hash(bytes.1).as_bytes().to_vec();
        for span in 0..=record.points.len() as u64 {
            for segment in &record.segments {
                rows(&at, segment, |volume, of, first, sectors, content| {
                    let (from, to) = (first as usize * 512, (first + sectors) as usize * 512);
                    let image = state.entry(volume).or_default();
                    if of == span {
                        image.resize(image.len().max(to), 0);
                        image[from..to].fill(0);
                        image[from..to].copy_from_slice(content.unwrap_or(&vec![0; to - from]));
                    }
                });
            }
            if let Some((seq, sizes)) = record.points.get(span as usize) {
                let image = |(volume, sectors): (&u16, &u64)| {
                    let mut image = state.get(volume).cloned().unwrap_or_default();
                    image.resize(*sectors as usize * 512, 0);
                    (*volume, image)
                };
                found.insert(*seq, sizes.iter().map(image).collect());
            }
        }
    }
    found
}

#[test]
fn a_reader_written_from_the_document_sees_every_point_as_it_was() {
    for seed in 0..5 {
        let dice = Seeded::new(seed);
        let records = history(&dice, Shape { percent: 0, writers: 1, length: 60, wide: false });
        let store = Arc::new(MemStore::new());
        run(async {
            let vault = Vault::init(store.clone(), VaultKeys::new([3; 32]), &*dice).await.unwrap();
            let mut done = 0;
            while done < records.len() {
                let mut writer =
                    MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await.unwrap();
                for _ in 0..3 {
                    done = records.len().min(done + 1 + dice.below(14) as usize);
                    writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
                }
            }
        });
        let mut oracle = Oracle::default();
        records.iter().for_each(|record| oracle.apply(record));
        let read =
            |name: redoubt_ports::StoreKey| (name.as_str().to_owned(), store.peek(&name).unwrap().to_vec());
        let objects: Objects = store.names().into_iter().map(read).collect();
        let found = points(&objects, &[3; 32], &MACHINE.to_string());
        assert_eq!(found.len(), oracle.order.len(), "seed {seed}: the points are those that were marked");
        for (seq, marker) in &oracle.order {
            let wanted: Images =
                oracle.points[marker].iter().map(|(volume, image)| (volume.0, image.clone())).collect();
            assert!(found[seq] == wanted, "seed {seed}: the point at {seq} reads as it was");
        }
    }
}
