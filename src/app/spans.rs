//! Places in a text, as each language counts them.

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Span {
    /// First byte of the UTF-8 text.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
    /// First UTF-16 unit.
    pub utf16_start: u32,
    /// One past the last unit.
    pub utf16_end: u32,
}

/// Turns byte offsets into spans; those that come in order cost one walk through the text together.
pub(super) struct Spans<'t> {
    text: &'t str,
    byte: usize,
    utf16: u32,
}

impl<'t> Spans<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, byte: 0, utf16: 0 }
    }

    /// The span of the bytes `start..end`, and its text.
    pub fn span(&mut self, start: u32, end: u32) -> (Span, String) {
        let part = self.text.get(start as usize..end as usize).unwrap_or_default();
        let (utf16_start, utf16_end) = (self.utf16_at(start as usize), self.utf16_at(end as usize));
        (Span { start, end, utf16_start, utf16_end }, part.to_owned())
    }

    fn utf16_at(&mut self, byte: usize) -> u32 {
        if byte < self.byte {
            (self.byte, self.utf16) = (0, 0);
        }
        let between = self.text.get(self.byte..byte).unwrap_or_default();
        self.utf16 += between.encode_utf16().count() as u32;
        self.byte = byte;
        self.utf16
    }
}
