//! Bytes as text that can be printed and typed: numbered lines of base32, each with its own check.
//!
//! The alphabet has no I, L, O and U; what is typed for them is understood. A line holds 20 bytes in 8 groups of 4 and
//! a check of 2 characters, so that a slip of the pen is found in its line.

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LINE_BYTES: usize = 20;
/// A kit has some 20 lines; this bounds what is read of another file.
const LINES_MAX: usize = 128;

/// What is wrong with armoured text, and in which line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    #[error("line {0} does not fit its check: compare it with the original")]
    Check(usize),
    #[error("line {0} holds {1:?}, which no line can hold")]
    Character(usize, char),
    #[error("line {0} is missing, or lines are out of order")]
    Missing(usize),
    #[error("it has more lines than a kit")]
    TooLong,
}

fn spell(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

fn digit(character: char) -> Option<u32> {
    let character = match character.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == character).map(|at| at as u32)
}

fn read(digits: &[u32]) -> Vec<u8> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for digit in digits {
        held = held << 5 | digit;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    bytes
}

/// Ten bits over a line and its number, as two characters.
fn check(number: usize, bytes: &[u8]) -> String {
    let mut covered = (number as u16).to_le_bytes().to_vec();
    covered.extend(bytes);
    let sum = crc32c::crc32c(&covered) & 0x3ff;
    [sum >> 5, sum & 31].map(|digit| char::from(ALPHABET[digit as usize])).iter().collect()
}

/// Writes bytes as lines.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let line = |(at, part): (usize, &[u8])| {
        let text = spell(part);
        let groups: Vec<&str> =
            text.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
        format!("{:>3}  {:<39}  {}\n", at + 1, groups.join(" "), check(at + 1, part))
    };
    bytes.chunks(LINE_BYTES).enumerate().map(line).collect()
}

/// Reads lines back; spaces and case do not matter, empty lines neither.
pub(crate) fn decode(lines: &[&str]) -> Result<Vec<u8>, Mistake> {
    let mut bytes = Vec::new();
    for (at, line) in lines.iter().filter(|line| !line.trim().is_empty()).enumerate() {
        let number = at + 1;
        if number > LINES_MAX {
            return Err(Mistake::TooLong);
        }
        let (first, rest) = line.trim().split_once(char::is_whitespace).ok_or(Mistake::Missing(number))?;
        if first.parse() != Ok(number) {
            return Err(Mistake::Missing(number));
        }
        let mut digits = Vec::new();
        for character in rest.chars().filter(|character| !character.is_whitespace()) {
            digits.push(digit(character).ok_or(Mistake::Character(number, character))?);
        }
        let (body, sum) = digits.split_last_chunk::<2>().ok_or(Mistake::Check(number))?;
        let part = read(body);
        let found: String = sum.map(|digit| char::from(ALPHABET[digit as usize])).iter().collect();
        if found != check(number, &part) || part.len() > LINE_BYTES {
            return Err(Mistake::Check(number));
        }
        bytes.extend(part);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_is_read_back_however_it_is_typed() {
        for length in [0, 1, 19, 20, 21, 140, 300] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 37 % 256) as u8).collect();
            let text = encode(&bytes);
            assert!(text.lines().all(|line| line.len() <= 48), "{text}");
            let typed = text.to_lowercase().replace('0', "o").replace(" 1 ", " 1  ");
            for text in [text, typed.replace("  1o", " 10").replace("  2o", " 20")] {
                // Numbers of lines are numbers, so their noughts stay.
                let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(" o")).collect();
                if lines.iter().all(|line| line.trim().split(' ').next().unwrap().parse::<usize>().is_ok()) {
                    assert_eq!(decode(&lines).unwrap(), bytes);
                }
            }
        }
    }

    #[test]
    fn every_slip_is_found_in_its_line() {
        let text = encode(&[7; 50]);
        let lines: Vec<&str> = text.lines().collect();
        for (at, character) in lines[1].char_indices().skip(5).filter(|(_, c)| !c.is_whitespace()) {
            let mut slip = lines[1].to_owned();
            let other = if character == 'Z' { "Y" } else { "Z" };
            slip.replace_range(at..at + 1, other);
            assert_eq!(decode(&[lines[0], &slip, lines[2]]), Err(Mistake::Check(2)), "{slip}");
        }
        assert_eq!(decode(&[lines[0], lines[2]]), Err(Mistake::Missing(2)));
        assert_eq!(decode(&[lines[1], lines[0], lines[2]]), Err(Mistake::Missing(1)));
        assert_eq!(decode(&["  1  AAAA u"]), Err(Mistake::Character(1, 'u')));
        assert_eq!(decode(&["1"]), Err(Mistake::Missing(1)));
    }
}
