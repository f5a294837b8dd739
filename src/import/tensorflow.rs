//! The names that Google's code gave its variables: `electra/encoder/layer_0/attention/self/query/kernel`, kernels `[inputs,
//! outputs]`. A pre-training checkpoint holds two encoders; the discriminator's is taken.

use super::Tensors;

/// The tensors under ELECTRA's names, if they are Google's; else as they are.
pub fn renamed(tensors: Tensors) -> Tensors {
    if !tensors.iter().any(|(name, _)| name.starts_with("electra/")) {
        return tensors;
    }
    let mut renamed = Tensors::default();
    for (name, array) in tensors.iter() {
        let Some((name, is_kernel)) = electra_name(name) else {
            log::debug!("{name}: passed over, the discriminator has no such tensor");
            continue;
        };
        if is_kernel && array.ndim() == 2 {
            let (inputs, outputs) = (array.shape()[0], array.shape()[1]);
            renamed.insert(&name, &[outputs, inputs], array.t().iter().copied().collect());
        } else {
            renamed.insert(&name, array.shape(), array.iter().copied().collect());
        }
    }
    renamed
}

/// A variable's name in ELECTRA's terms, and whether it is a kernel, which is transposed. `None` for the generator, the
/// optimiser and the pooler, which is not trained.
fn electra_name(name: &str) -> Option<(String, bool)> {
    let name = name.strip_suffix(":0").unwrap_or(name);
    let is_kept = name.starts_with("electra/") && !name.starts_with("electra/pooler/")
        || ["discriminator_predictions/", "classifier/", "qa_outputs/"]
            .iter()
            .any(|head| name.starts_with(head));
    if !is_kept || ["/adam_m", "/adam_v"].iter().any(|end| name.ends_with(end)) {
        return None;
    }
    let (path, last) = name.rsplit_once('/')?;
    let path = path
        .replace("/layer_", "/layer.")
        .replace("discriminator_predictions/dense_1", "discriminator_predictions/dense_prediction");
    let path = path.replace('/', ".");
    let (last, is_kernel) = match last {
        "kernel" => (".weight".to_owned(), true),
        "bias" => (".bias".to_owned(), false),
        "gamma" => (".weight".to_owned(), false),
        "beta" => (".bias".to_owned(), false),
        table => (format!(".{table}.weight"), false),
    };
    Some((path + &last, is_kernel))
}
