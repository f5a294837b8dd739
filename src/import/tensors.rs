//! Named f32 tensors, and the safetensors files they come from and go to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use ndarray::{ArrayD, ArrayViewD, Axis, CowArray, Ix1, Ix2, IxDyn};
use ndarray_npy::{NpzReader, ReadNpyError, ReadNpzError};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::ImportError;
use crate::weights::{map, release};

/// Tensors by name, row-major f32: in memory, or still in the safetensors file that they came from.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    by_name: BTreeMap<String, Stored>,
    /// The files that some of them lie in.
    files: Vec<Arc<Mmap>>,
}

#[derive(Clone, Debug)]
enum Stored {
    Held(ArrayD<f32>),
    InFile { file: Arc<Mmap>, bytes: Range<usize>, dtype: Dtype, shape: Vec<usize> },
}

impl Stored {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Held(array) => array.shape(),
            Self::InFile { shape, .. } => shape,
        }
    }

    /// The values: where they are, if they are f32 there, else widened.
    fn array(&self) -> CowArray<'_, f32, IxDyn> {
        match self {
            Self::Held(array) => array.view().into(),
            Self::InFile { file, bytes, dtype, shape } => {
                let bytes = &file[bytes.clone()];
                let in_place = bytemuck::try_cast_slice::<u8, f32>(bytes).ok();
                let in_place = in_place.filter(|_| *dtype == Dtype::F32 && cfg!(target_endian = "little"));
                let shaped = "a shape was compared with its bytes when the file was read";
                match in_place {
                    Some(values) => ArrayViewD::from_shape(IxDyn(shape), values).expect(shaped).into(),
                    None => {
                        ArrayD::from_shape_vec(IxDyn(shape), widened(*dtype, bytes)).expect(shaped).into()
                    }
                }
            }
        }
    }
}

impl PartialEq for Tensors {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Tensors {
    /// Adds or replaces a tensor. `values` holds `shape`'s product of elements, row-major.
    ///
    /// # Panics
    /// If it does not.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let array = ArrayD::from_shape_vec(IxDyn(shape), values)
            .unwrap_or_else(|error| panic!("tensor {name}: {error}"));
        self.by_name.insert(name.to_owned(), Stored::Held(array));
    }

    /// All tensors in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, CowArray<'_, f32, IxDyn>)> {
        self.by_name.iter().map(|(name, stored)| (name, stored.array()))
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// The tensor of that name, whatever its shape.
    ///
    /// # Errors
    /// [`ImportError::MissingTensor`].
    pub fn array(&self, name: &str) -> Result<CowArray<'_, f32, IxDyn>, ImportError> {
        Ok(self.stored(name)?.array())
    }

    /// Lets go of the pages of files that were read so far: what is needed again is read again.
    pub fn release(&self) {
        self.files.iter().for_each(|file| release(file));
    }

    /// Whether a tensor of that name is here.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Renames every tensor; those for which `rename` returns `None` are left out.
    pub fn renamed(self, mut rename: impl FnMut(&str) -> Option<String>) -> Self {
        let renamed = self.by_name.into_iter().filter_map(|(name, stored)| Some((rename(&name)?, stored)));
        Self { by_name: renamed.collect(), files: self.files }
    }

    /// The same with only the first `rows` rows of one table.
    pub fn with_first_rows(mut self, name: &str, rows: usize) -> Self {
        if let Some(stored) = self.by_name.get_mut(name).filter(|stored| !stored.shape().is_empty()) {
            let first = stored.array().slice_axis(Axis(0), (..rows).into()).to_owned();
            *stored = Stored::Held(first);
        }
        self
    }

    /// A matrix of exactly that shape.
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<CowArray<'_, f32, Ix2>, ImportError> {
        let array = self.get(name, &shape)?.array();
        Ok(array.into_dimensionality::<Ix2>().expect("the shape was compared"))
    }

    /// A vector of exactly that length.
    pub fn vector(&self, name: &str, length: usize) -> Result<CowArray<'_, f32, Ix1>, ImportError> {
        let array = self.get(name, &[length])?.array();
        Ok(array.into_dimensionality::<Ix1>().expect("the shape was compared"))
    }

    /// Whether a tensor of exactly that shape is here; nothing of it is read.
    ///
    /// # Errors
    /// [`ImportError::MissingTensor`], [`ImportError::WrongShape`].
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), ImportError> {
        self.get(name, shape).map(drop)
    }

    fn stored(&self, name: &str) -> Result<&Stored, ImportError> {
        self.by_name.get(name).ok_or_else(|| ImportError::MissingTensor(name.to_owned()))
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<&Stored, ImportError> {
        let stored = self.stored(name)?;
        if stored.shape() == shape {
            Ok(stored)
        } else {
            Err(ImportError::WrongShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: stored.shape().to_vec(),
            })
        }
    }

    /// Takes in one safetensors or `.npz` file; f16 and bf16 widen to f32, f64 is rounded, integer
    /// buffers (`position_ids`) are passed over. A safetensors file is mapped and its tensors are read where they are used: replace it by renaming.
    pub fn read(&mut self, path: &Path) -> Result<(), ImportError> {
        if path.extension().is_some_and(|extension| extension == "npz") {
            return self.read_npz(path);
        }
        let file = std::fs::File::open(path).and_then(|file| map(&file));
        let file = Arc::new(file.map_err(|error| ImportError::io(path, error))?);
        let parsed = SafeTensors::deserialize(&file)
            .map_err(|error| ImportError::Safetensors { path: path.to_owned(), error })?;
        for (name, view) in parsed.tensors() {
            let (dtype, shape) = (view.dtype(), view.shape().to_vec());
            if !matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                log::debug!("{name}: passed over, {dtype:?} is not read");
                continue;
            }
            let start = view.data().as_ptr().addr() - file.as_ptr().addr();
            let bytes = start..start + view.data().len();
            self.by_name.insert(name, Stored::InFile { file: Arc::clone(&file), bytes, dtype, shape });
        }
        self.files.push(file);
        Ok(())
    }

    fn read_npz(&mut self, path: &Path) -> Result<(), ImportError> {
        let fail =
            |error: ReadNpzError| ImportError::Npz { path: path.to_owned(), message: error.to_string() };
        let file = std::fs::File::open(path).map_err(|error| ImportError::io(path, error))?;
        let mut npz = NpzReader::new(file).map_err(fail)?;
        for name in npz.names().map_err(fail)? {
            match npz.by_name::<ndarray::OwnedRepr<f32>, IxDyn>(&name) {
                Ok(array) => {
                    let values = array.iter().copied().collect();
                    self.insert(name.trim_end_matches(".npy"), array.shape(), values);
                }
                Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(kind))) => {
                    let Ok(array) = npz.by_name::<ndarray::OwnedRepr<f64>, IxDyn>(&name) else {
                        if kind.to_string().contains('f') {
                            let message =
                                format!("{name}: {kind}, where f4 and f8 are read; save it as float32");
                            return Err(ImportError::Npz { path: path.to_owned(), message });
                        }
                        log::debug!("{name}: passed over, {kind} is not read");
                        continue;
                    };
                    let values = array.iter().map(|&value| value as f32).collect();
                    self.insert(name.trim_end_matches(".npy"), array.shape(), values);
                }
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }

    /// Writes all tensors as one f32 safetensors file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), ImportError> {
        let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = self
            .iter()
            .map(|(name, array)| {
                let bytes = array.iter().flat_map(|value| value.to_le_bytes()).collect();
                (name, (array.shape().to_vec(), bytes))
            })
            .collect();
        let views = bytes.iter().map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (*name, view.expect("four bytes an element"))
        });
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let file = safetensors::serialize(views, Some(metadata))
            .map_err(|error| ImportError::Safetensors { path: path.to_owned(), error })?;
        super::write_atomically(path, &file).map_err(|error| ImportError::io(path, error))
    }
}

/// The values of a float tensor's little-endian bytes.
fn widened(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.as_chunks().0.iter();
    match dtype {
        Dtype::F16 => halves.map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        Dtype::BF16 => halves.map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    }
}
