//! A NOR flash that can be told when its power fails, how far the operation comes, and which page is worn out.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// A NOR flash in memory: `PAGE` bytes are erased at once, up to `PROGRAM` bytes programmed at once, in words of
/// `WORD` bytes, each once between two erasures (and once more to all zeros, as flash with error correction
/// allows).
#[derive(Clone)]
pub struct Chip<const PAGE: usize, const PROGRAM: usize, const WORD: usize> {
    bytes: Vec<u8>,
    /// Words that were programmed since they were erased.
    programmed: Vec<bool>,
    /// Program and erase operations so far, and which of them erased which page.
    pub operations: usize,
    pub erasures: Vec<(usize, usize)>,
    /// The operation during which the power fails, and how far that operation comes.
    pub cut: Option<(usize, Torn)>,
    dead: bool,
    /// A page that takes no program operation any more; or, silently, loses bits.
    pub worn: Option<(usize, Wear)>,
    pub random: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Torn {
    /// The power fails before anything happens.
    Before,
    /// The first half happens, to the middle of a byte.
    Half,
    /// The second half happens.
    Rest,
    /// Each bit changes or does not.
    Bits,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Wear {
    Refuses,
    LosesBits,
}

#[derive(Debug)]
#[expect(dead_code, reason = "printed when a test fails")]
pub enum Fault {
    PowerLost,
    WornOut,
    Misuse(&'static str),
}

impl NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const PAGE: usize, const PROGRAM: usize, const WORD: usize> Chip<PAGE, PROGRAM, WORD> {
    pub fn new(pages: usize) -> Self {
        let (bytes, programmed) = (vec![0xff; pages * PAGE], vec![false; pages * PAGE / WORD]);
        let (operations, erasures) = (0, Vec::new());
        Self { bytes, programmed, operations, erasures, cut: None, dead: false, worn: None, random: 0x5eed }
    }

    /// The power comes back.
    pub fn reboot(&mut self) {
        (self.dead, self.cut) = (false, None);
    }

    fn next_random(&mut self) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u8
    }

    /// Counts an operation: how far it comes, if this is the one that the power fails in.
    fn begin(&mut self) -> Result<Option<Torn>, Fault> {
        if self.dead {
            return Err(Fault::PowerLost);
        }
        let here = self.cut.filter(|&(at, _)| at == self.operations);
        self.operations += 1;
        self.dead = here.is_some();
        Ok(here.map(|(_, torn)| torn))
    }

    /// Lets `count` bytes from `start` on become what `new` says, as far as the operation comes.
    fn change(
        &mut self,
        start: usize,
        count: usize,
        torn: Option<Torn>,
        new: impl Fn(usize, u8) -> u8,
    ) -> Result<(), Fault> {
        for index in 0..count {
            let old = self.bytes[start + index];
            let whole = new(index, old);
            let changed = old ^ whole;
            let mask = match torn {
                None => 0xff,
                Some(Torn::Before) => 0,
                Some(Torn::Half) if index * 2 + 1 < count => 0xff,
                Some(Torn::Half) if index * 2 < count + 1 => 0x5a,
                Some(Torn::Half) => 0,
                Some(Torn::Rest) => u8::from(index * 2 >= count) * 0xff,
                Some(Torn::Bits) => self.next_random(),
            };
            self.bytes[start + index] = old ^ (changed & mask);
        }
        if torn.is_some() { Err(Fault::PowerLost) } else { Ok(()) }
    }
}

impl<const PAGE: usize, const PROGRAM: usize, const WORD: usize> ErrorType for Chip<PAGE, PROGRAM, WORD> {
    type Error = Fault;
}

impl<const PAGE: usize, const PROGRAM: usize, const WORD: usize> ReadNorFlash for Chip<PAGE, PROGRAM, WORD> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::PowerLost);
        }
        let start = offset as usize;
        bytes.copy_from_slice(
            self.bytes.get(start..start + bytes.len()).ok_or(Fault::Misuse("read outside"))?,
        );
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const PAGE: usize, const PROGRAM: usize, const WORD: usize> NorFlash for Chip<PAGE, PROGRAM, WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        for start in (from as usize..to as usize).step_by(PAGE) {
            self.erasures.push((self.operations, start / PAGE));
            let torn = self.begin()?;
            if torn != Some(Torn::Before) {
                self.programmed[start / WORD..(start + PAGE) / WORD].fill(false);
            }
            self.change(start, PAGE, torn, |_, _| 0xff)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        let mut at = offset as usize;
        let end = at + bytes.len();
        if !at.is_multiple_of(WORD) || !bytes.len().is_multiple_of(WORD) {
            return Err(Fault::Misuse("not aligned"));
        }
        while at < end {
            let next = end.min((at / PROGRAM + 1) * PROGRAM);
            let torn = self.begin()?;
            if self.worn.is_some_and(|(page, wear)| page == at / PAGE && wear == Wear::Refuses) {
                return Err(Fault::WornOut);
            }
            let part = &bytes[at - offset as usize..next - offset as usize];
            for word in at / WORD..next / WORD {
                let erased = self.bytes[word * WORD..(word + 1) * WORD].iter().all(|&byte| byte == 0xff);
                let zeros = part[word * WORD - at..][..WORD].iter().all(|&byte| byte == 0);
                if self.programmed[word] && !erased && !zeros {
                    return Err(Fault::Misuse("a word is programmed twice"));
                }
                self.programmed[word] |= torn != Some(Torn::Before);
            }
            let loses = self.worn.is_some_and(|(page, wear)| page == at / PAGE && wear == Wear::LosesBits);
            let stuck = if loses { 0x10 } else { 0 };
            self.change(at, next - at, torn, |index, old| old & (part[index] | stuck))?;
            at = next;
        }
        Ok(())
    }
}
