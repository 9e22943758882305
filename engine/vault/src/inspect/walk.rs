//! A walk through the fields of an object that remembers where each one is, and where it stumbled.

use super::{Field, Finding, Value};

/// Takes fields from the front. The first field that is not there ends the walk.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    /// Where `bytes` start in the object.
    base: u64,
    at: usize,
    pub(super) fields: Vec<Field>,
    pub(super) findings: Vec<Finding>,
}

/// The object ended in the middle of a field; the finding is made already.
#[derive(Debug)]
pub(super) struct Ended;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], base: u64) -> Walk<'a> {
        Walk { bytes, base, at: 0, fields: Vec::new(), findings: Vec::new() }
    }

    /// Returns where the walk is in the object.
    pub(super) fn place(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Takes a field's bytes without showing them.
    fn take(&mut self, name: &str, length: usize) -> Result<&'a [u8], Ended> {
        let Some(taken) = self.bytes.get(self.at..self.at + length) else {
            let (from, to) = (self.place(), self.base + self.bytes.len() as u64);
            self.findings.push(Finding::new(
                from,
                to,
                format!("ends within {name}, which has {length} bytes"),
            ));
            return Err(Ended);
        };
        self.at += length;
        Ok(taken)
    }

    fn show(&mut self, name: &'static str, length: usize, value: Value) {
        let at = self.place() - length as u64;
        self.fields.push(Field { at, bytes: length as u64, name, value });
    }

    /// Says what is wrong with the field taken last.
    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        let Some(last) = self.fields.last() else { return };
        self.findings.push(Finding::new(last.at, last.at + last.bytes, what));
    }

    /// As [`Walk::wrong`], unless `is_right`.
    pub(super) fn must(&mut self, is_right: bool, what: impl Into<String>) {
        if !is_right {
            self.wrong(what);
        }
    }

    /// Takes a number that need not be shown.
    pub(super) fn number(&mut self, name: &'static str, length: usize) -> Result<u64, Ended> {
        let bytes = self.take(name, length)?;
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.show(name, length, Value::Number(number));
        Ok(number)
    }

    /// Takes a code, shown by what it stands for.
    pub(super) fn code(&mut self, name: &'static str, words: &[&str]) -> Result<usize, Ended> {
        let code = usize::from(self.take(name, 1)?[0]);
        let word = words.get(code).copied().filter(|word| !word.is_empty());
        self.show(name, 1, Value::Text(word.map_or(format!("unknown ({code})"), str::to_owned)));
        self.must(word.is_some(), format!("{name} {code} is unknown"));
        Ok(code)
    }

    /// Takes a length with its codec in the highest bit.
    pub(super) fn packed(&mut self, name: &'static str) -> Result<u64, Ended> {
        let packed = self.number(name, 4)?;
        let codec = if packed >> 31 == 0 { "raw" } else { "zstd" };
        if let Some(field) = self.fields.last_mut() {
            field.value = Value::Text(format!("{}, {codec}", packed & 0x7fff_ffff));
        }
        Ok(packed)
    }

    /// Takes a text with its length before it.
    pub(super) fn text(&mut self, name: &'static str) -> Result<String, Ended> {
        let length = usize::from(self.take(name, 1)?[0]);
        let text = String::from_utf8_lossy(self.take(name, length)?).escape_debug().to_string();
        self.show(name, length + 1, Value::Text(text.clone()));
        Ok(text)
    }

    pub(super) fn wall(&mut self, name: &'static str) -> Result<u64, Ended> {
        let wall = self.number(name, 8)?;
        if let Some(field) = self.fields.last_mut() {
            field.value = Value::Wall(wall);
        }
        Ok(wall)
    }

    pub(super) fn id(&mut self, name: &'static str) -> Result<u128, Ended> {
        let bytes = self.raw(name, 16)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }

    /// Takes bytes, shown in hex.
    pub(super) fn raw(&mut self, name: &'static str, length: usize) -> Result<&'a [u8], Ended> {
        let bytes = self.take(name, length)?;
        self.show(name, length, Value::Text(hex(bytes)));
        Ok(bytes)
    }

    /// Takes sealed bytes, of which only the length is shown.
    pub(super) fn sealed(&mut self, name: &'static str, length: usize) -> Result<&'a [u8], Ended> {
        let bytes = self.take(name, length)?;
        self.show(name, length, Value::Text(format!("{length} sealed bytes")));
        Ok(bytes)
    }

    /// Takes bytes that must be zero; says which is not.
    pub(super) fn reserved(&mut self, length: usize) -> Result<(), Ended> {
        let at = self.place();
        let bytes = self.take("reserved", length)?;
        self.show("reserved", length, Value::Text("zeros".to_owned()));
        if let Some(odd) = bytes.iter().position(|byte| *byte != 0) {
            let from = at + odd as u64;
            self.findings.push(Finding::new(from, from + 1, "a reserved byte is not zero"));
        }
        Ok(())
    }

    /// Takes the name of the structure, then its format.
    pub(super) fn magic(&mut self, magic: &[u8; 8]) -> Result<(), Ended> {
        let bytes = self.take("magic", 8)?;
        let text = String::from_utf8_lossy(bytes).trim_end_matches('\0').escape_default().to_string();
        self.show("magic", 8, Value::Text(text));
        let wanted = String::from_utf8_lossy(magic).trim_end_matches('\0').to_owned();
        self.must(bytes == magic, format!("is not {wanted}"));
        let format = self.take("format", 4)?;
        let (major, minor) =
            (format[0] as u16 | (format[1] as u16) << 8, format[2] as u16 | (format[3] as u16) << 8);
        self.show("format", 4, Value::Text(format!("{major}.{minor}")));
        self.must(major == crate::vault::MAJOR, format!("format {major}.x is unknown: use a newer program"));
        Ok(())
    }

    /// Takes the checksum of everything before it.
    pub(super) fn crc(&mut self) -> Result<(), Ended> {
        let found = crc32c::crc32c(&self.bytes[..self.at]);
        let stored = self.number("checksum", 4)? as u32;
        let (from, to) = (self.base, self.place());
        if let Some(field) = self.fields.last_mut() {
            field.value = Value::Text(format!("{stored:08x}"));
        }
        if stored != found {
            let what = format!("the checksum says {stored:08x}, the bytes give {found:08x}");
            self.findings.push(Finding::new(from, to, what));
        }
        Ok(())
    }

    /// Says so if anything is left.
    pub(super) fn end(&mut self) {
        if self.at < self.bytes.len() {
            let (from, to) = (self.place(), self.base + self.bytes.len() as u64);
            self.findings.push(Finding::new(from, to, "these bytes are too many"));
        }
    }
}
