//! What goes in and comes out.

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;

use super::refusal::Refusal;
use crate::text::Input;

/// The length of a text that ends at its first NUL.
pub const NUL_TERMINATED: usize = usize::MAX;

/// A token and how likely it is to be a replacement.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Detection {
    /// First byte in the text.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Probability that it was replaced.
    pub replaced: f32,
}

/// A word and its label.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Tag {
    /// First byte in the text.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Number of its likeliest label.
    pub label: u32,
    /// That label's probability.
    pub score: f32,
}

/// A part of a context that answers a question.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Answer {
    /// First byte in the context.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Sum of the logits of its first and last token.
    pub score: f32,
}

/// An answer goes through one of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Kind {
    /// Which of the labels has a text?
    Classify = 0,
    /// What value has a text?
    Regress = 1,
    /// Which of the labels has each word?
    Tag = 2,
    /// Where in a context does the answer stand?
    Answer = 3,
    /// Which words were replaced?
    Detect = 4,
}

/// What is to be learned, and how. Zero or NULL stands for a default where one is named.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Lesson {
    /// Which head learns: one of `electret_kind`.
    pub kind: u32,
    /// Names of the classes or tags, each ended by NUL; NULL for the other kinds.
    pub labels: *const *const c_char,
    /// How many they are.
    pub label_count: usize,
    /// What is trained, as for `electret tune`, ended by NUL; NULL for `head+lora:8:4`.
    pub strategy: *const c_char,
    /// Longest sequence in tokens; what is longer loses its end. 0 for 128, or the model's longest.
    pub tokens: u32,
    /// Examples a step; 0 for 16.
    pub batch_size: u32,
    /// Largest learning rate; 0 for 0.001.
    pub learning_rate: f32,
    /// Seed of the order and of what starts at random.
    pub seed: u64,
}

/// A text, perhaps a pair, and what it teaches: that one of the last fields which the lesson's kind asks for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Example {
    /// The text; a question.
    pub text: *const c_char,
    /// Its bytes.
    pub text_bytes: usize,
    /// The second text, or the context of a question; NULL if there is none.
    pub pair: *const c_char,
    /// Its bytes.
    pub pair_bytes: usize,
    /// Numbers of labels: one for classes, one a word for tags, 0 or 1 a word for detection. Words are what whitespace
    /// separates.
    pub labels: *const u16,
    /// How many they are.
    pub label_count: usize,
    /// For regression: the value.
    pub value: f32,
    /// For answers: the first byte in the context.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A text of the caller's.
pub(super) unsafe fn text<'t>(
    field: &'static str,
    bytes: *const c_char,
    length: usize,
) -> Result<&'t str, Refusal> {
    if bytes.is_null() {
        return Err(Refusal::Null(field));
    }
    let bytes = if length == NUL_TERMINATED {
        // SAFETY: the caller says that it ends with a NUL.
        unsafe { CStr::from_ptr(bytes) }.to_bytes()
    } else {
        // SAFETY: the caller says that there are `length` bytes.
        unsafe { slice(field, bytes.cast::<u8>(), length)? }
    };
    core::str::from_utf8(bytes).map_err(|error| Refusal::NotUtf8 { field, valid: error.valid_up_to() })
}

/// A text, and a pair if it is not NULL.
pub(super) unsafe fn input<'t>(
    first: *const c_char,
    first_bytes: usize,
    pair: *const c_char,
    pair_bytes: usize,
    truncate: bool,
) -> Result<Input<'t>, Refusal> {
    // SAFETY: as the caller says of both.
    let text = unsafe { self::text("text", first, first_bytes)? };
    // SAFETY: the same.
    let pair = if pair.is_null() { None } else { Some(unsafe { self::text("pair", pair, pair_bytes)? }) };
    Ok(Input { text, pair, truncate })
}

/// `count` values of the caller's; NULL will do for none.
pub(super) unsafe fn slice<'v, T>(
    field: &'static str,
    values: *const T,
    count: usize,
) -> Result<&'v [T], Refusal> {
    if count == 0 {
        return Ok(&[]);
    }
    if values.is_null() {
        return Err(Refusal::Null(field));
    }
    if !values.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return Err(Refusal::Argument { field, reason: "misaligned, or longer than memory" });
    }
    // SAFETY: not NULL, aligned, no longer than memory; the caller says that as many values are there.
    Ok(unsafe { core::slice::from_raw_parts(values, count) })
}

/// One value of the caller's.
pub(super) unsafe fn given<'v, T>(field: &'static str, value: *const T) -> Result<&'v T, Refusal> {
    // SAFETY: the caller gives NULL or a value.
    unsafe { value.as_ref() }.ok_or(Refusal::Null(field))
}

/// A place for one value.
pub(super) unsafe fn place<'v, T>(
    field: &'static str,
    value: *mut T,
) -> Result<&'v mut MaybeUninit<T>, Refusal> {
    // SAFETY: the caller gives NULL or a place for a value.
    unsafe { value.cast::<MaybeUninit<T>>().as_mut() }.ok_or(Refusal::Null(field))
}

/// A place for the caller's answer of several values, and for their number.
pub(super) struct Room<'v, T> {
    values: &'v mut [MaybeUninit<T>],
    count: &'v mut MaybeUninit<usize>,
}

impl<T> Room<'_, T> {
    /// A place for `capacity` values; NULL will do for none.
    pub unsafe fn new(values: *mut T, capacity: usize, count: *mut usize) -> Result<Self, Refusal> {
        // SAFETY: as the caller says.
        let count = unsafe { place("count", count)? };
        if capacity == 0 {
            return Ok(Self { values: &mut [], count });
        }
        if values.is_null() {
            return Err(Refusal::Null("values"));
        }
        if !values.is_aligned() || capacity > isize::MAX as usize / size_of::<T>() {
            return Err(Refusal::Argument { field: "values", reason: "misaligned, or longer than memory" });
        }
        // SAFETY: not NULL, aligned, no longer than memory; the caller says that there is room for as many values.
        let values = unsafe { core::slice::from_raw_parts_mut(values.cast(), capacity) };
        Ok(Self { values, count })
    }

    /// Lets `write` fill the place of `needed` bytes, if there is room.
    pub fn write(
        self,
        needed: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal>
    where
        T: bytemuck::Pod,
    {
        self.count.write(needed);
        let capacity = self.values.len();
        let place = self.values.get_mut(..needed).ok_or(Refusal::Room { needed, capacity })?;
        place.fill(MaybeUninit::new(T::zeroed()));
        // SAFETY: every value was written just now.
        let place = unsafe { &mut *(core::ptr::from_mut(place) as *mut [T]) };
        write(bytemuck::cast_slice_mut(place))
    }

    /// Writes the values down as far as there is room, and says how many there are.
    pub fn fill(self, values: impl Iterator<Item = T>) -> Result<(), Refusal> {
        let (capacity, mut needed) = (self.values.len(), 0);
        for value in values {
            if let Some(place) = self.values.get_mut(needed) {
                place.write(value);
            }
            needed += 1;
        }
        self.count.write(needed);
        if needed <= capacity { Ok(()) } else { Err(Refusal::Room { needed, capacity }) }
    }
}
