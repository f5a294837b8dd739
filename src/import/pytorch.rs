//! `pytorch_model.bin`, by the reader of `burn-store`: it takes tensors out of a pickle and runs nothing of it.
//!
//! Only the zip archives that PyTorch writes since 1.6 are taken, whose parts have checksums: of a truncated file in the
//! older format the reader makes zeros.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use burn_store::pytorch::PytorchReader;
use zip::ZipArchive;
use zip::result::{ZipError, ZipResult};

use super::{ImportError, Tensors};

/// Adds the tensors of a state dict to `tensors`, in f32; of another kind than numbers, none.
///
/// # Errors
/// [`ImportError::Pytorch`] with what the reader said.
pub fn read(path: &Path, tensors: &mut Tensors) -> Result<(), ImportError> {
    let fail = |message: String| ImportError::Pytorch { path: path.to_owned(), message };
    let file = File::open(path).map_err(|error| ImportError::io(path, error))?;
    let whole = ZipArchive::new(file).and_then(|mut archive| check(path, &mut archive));
    whole.map_err(|error| {
        fail(format!("no whole zip archive as PyTorch writes since 1.6 ({error}); load it and save it anew"))
    })?;
    let reader = PytorchReader::new(path).map_err(|error| fail(error.to_string()))?;
    for (name, snapshot) in reader.tensors() {
        let data = snapshot.to_data().map_err(|error| fail(format!("{name}: {error:?}")))?;
        let shape: Vec<usize> = snapshot.shape.iter().copied().collect();
        let values = data.convert::<f32>().into_vec::<f32>();
        let values = values.map_err(|error| fail(format!("{name}: {error:?}")))?;
        if values.len() != shape.iter().product::<usize>() {
            return Err(fail(format!(
                "{name}: {} values where the shape {shape:?} has others",
                values.len()
            )));
        }
        tensors.insert(name, &shape, values);
    }
    Ok(())
}

/// Reads all parts to their ends, where their checksums are compared, and holds the directory's names to those in front
/// of the parts: the reader of tensors takes what it finds, and zeros where it finds nothing.
fn check(path: &Path, archive: &mut ZipArchive<File>) -> ZipResult<()> {
    let mut file = File::open(path)?;
    for index in 0..archive.len() {
        let mut part = archive.by_index(index)?;
        std::io::copy(&mut part, &mut std::io::sink())?;
        // A part's own header: 30 bytes, then its name.
        let mut name = vec![0; part.name_raw().len()];
        file.seek(SeekFrom::Start(part.header_start() + 30))?;
        file.read_exact(&mut name)?;
        if name != part.name_raw() {
            return Err(ZipError::InvalidArchive("a part has two names".into()));
        }
    }
    Ok(())
}
