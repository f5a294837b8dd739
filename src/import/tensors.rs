//! Named f32 tensors in host memory, and the safetensors files they come from and go to.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, ArrayView1, ArrayView2, Axis, Ix1, Ix2, IxDyn};
use ndarray_npy::{NpzReader, ReadNpyError, ReadNpzError};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::ImportError;

/// Tensors by name, row-major f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors(BTreeMap<String, ArrayD<f32>>);

impl Tensors {
    /// Adds or replaces a tensor. `values` holds `shape`'s product of elements, row-major.
    ///
    /// # Panics
    /// If it does not.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let array = ArrayD::from_shape_vec(IxDyn(shape), values)
            .unwrap_or_else(|error| panic!("tensor {name}: {error}"));
        self.0.insert(name.to_owned(), array);
    }

    /// All tensors in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &ArrayD<f32>)> {
        self.0.iter()
    }

    /// Whether a tensor of that name is here.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Renames every tensor; those for which `rename` returns `None` are left out.
    pub fn renamed(self, mut rename: impl FnMut(&str) -> Option<String>) -> Self {
        let renamed = self.0.into_iter().filter_map(|(name, array)| Some((rename(&name)?, array)));
        Self(renamed.collect())
    }

    /// The same with only the first `rows` rows of one table.
    pub fn with_first_rows(mut self, name: &str, rows: usize) -> Self {
        if let Some(array) = self.0.get_mut(name).filter(|array| array.ndim() > 0) {
            array.slice_axis_inplace(Axis(0), (..rows).into());
            *array = array.as_standard_layout().into_owned();
        }
        self
    }

    /// A matrix of exactly that shape.
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<ArrayView2<'_, f32>, ImportError> {
        let array = self.get(name, &shape)?;
        Ok(array.view().into_dimensionality::<Ix2>().expect("the shape was compared"))
    }

    /// A vector of exactly that length.
    pub fn vector(&self, name: &str, length: usize) -> Result<ArrayView1<'_, f32>, ImportError> {
        let array = self.get(name, &[length])?;
        Ok(array.view().into_dimensionality::<Ix1>().expect("the shape was compared"))
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<&ArrayD<f32>, ImportError> {
        let array = self.0.get(name).ok_or_else(|| ImportError::MissingTensor(name.to_owned()))?;
        if array.shape() == shape {
            Ok(array)
        } else {
            Err(ImportError::WrongShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: array.shape().to_vec(),
            })
        }
    }

    /// Reads one safetensors or `.npz` file into this set; f16 and bf16 widen to f32, integer buffers
    /// (`position_ids`) are passed over.
    pub fn read(&mut self, path: &Path) -> Result<(), ImportError> {
        if path.extension().is_some_and(|extension| extension == "npz") {
            return self.read_npz(path);
        }
        let bytes = std::fs::read(path).map_err(|error| ImportError::io(path, error))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| ImportError::Safetensors { path: path.to_owned(), error })?;
        for (name, view) in file.tensors() {
            match floats(&view) {
                Some(values) => self.insert(&name, view.shape(), values),
                None => log::debug!("{name}: passed over, {:?} is no float", view.dtype()),
            }
        }
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
                    log::debug!("{name}: passed over, {kind} is no f32");
                }
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }

    /// Writes all tensors as one f32 safetensors file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), ImportError> {
        let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = self
            .0
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

/// The values of a float tensor, or `None` for another type.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Dtype::F16 => {
            Some(bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect())
        }
        Dtype::BF16 => {
            Some(bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect())
        }
        _ => None,
    }
}
