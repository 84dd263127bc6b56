//! DIMSE command sets (PS3.7 section 6.3.1): elements of group 0000 in implicit VR little endian, read with limits and written exactly.

/// Longest command set that is read: real ones have a few hundred bytes.
pub const MAX_COMMAND: usize = 16 * 1024;
/// Command Data Set Type (0000,0800): no data set follows.
pub const NO_DATA_SET: u16 = 0x0101;
/// Bit of a response in the Command Field (0000,0100).
pub const RESPONSE: u16 = 0x8000;

/// Why bytes are not a command set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// An element is cut off, or not of group 0000.
    #[error("the command set is malformed")]
    Malformed,
    /// An element that the command needs is missing.
    #[error("the command set lacks (0000,{0:04X})")]
    Missing(u16),
}

/// A command set that was read.
#[derive(Debug)]
pub struct CommandSet<'a> {
    fields: Vec<(u16, &'a [u8])>,
}

impl<'a> CommandSet<'a> {
    /// Splits the bytes of a command set into its elements.
    pub fn read(bytes: &'a [u8]) -> Result<CommandSet<'a>, CommandError> {
        let mut fields = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at_checked(8).ok_or(CommandError::Malformed)?;
            let group = u16::from_le_bytes([head[0], head[1]]);
            let element = u16::from_le_bytes([head[2], head[3]]);
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let (value, tail) = tail.split_at_checked(length).ok_or(CommandError::Malformed)?;
            if group != 0 {
                return Err(CommandError::Malformed);
            }
            fields.push((element, value));
            rest = tail;
        }
        Ok(CommandSet { fields })
    }

    /// The bytes of (0000,element), if it is there.
    pub fn value(&self, element: u16) -> Option<&'a [u8]> {
        self.fields.iter().find(|(e, _)| *e == element).map(|(_, value)| *value)
    }

    /// The number in (0000,element).
    pub fn number(&self, element: u16) -> Result<u16, CommandError> {
        match self.value(element) {
            Some([a, b]) => Ok(u16::from_le_bytes([*a, *b])),
            Some(_) => Err(CommandError::Malformed),
            None => Err(CommandError::Missing(element)),
        }
    }

    /// The text in (0000,element), without padding.
    pub fn text(&self, element: u16) -> Result<String, CommandError> {
        let value = self.value(element).ok_or(CommandError::Missing(element))?;
        let text = std::str::from_utf8(value).map_err(|_| CommandError::Malformed)?;
        Ok(text.trim_matches(|c| c == '\0' || c == ' ').to_owned())
    }
}

/// A command set that is written, elements ascending.
#[derive(Debug, Default)]
pub struct CommandWriter {
    body: Vec<u8>,
}

impl CommandWriter {
    /// Adds a number.
    pub fn number(&mut self, element: u16, value: u16) -> &mut CommandWriter {
        put(&mut self.body, element, &value.to_le_bytes());
        self
    }

    /// Adds a UID.
    pub fn uid(&mut self, element: u16, uid: &str) -> &mut CommandWriter {
        let mut value = uid.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(0);
        }
        put(&mut self.body, element, &value);
        self
    }

    /// The bytes, with the group length in front.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 12);
        put(&mut out, 0x0000, &(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.body);
        out
    }
}

fn put(out: &mut Vec<u8>, element: u16, value: &[u8]) {
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&element.to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}
