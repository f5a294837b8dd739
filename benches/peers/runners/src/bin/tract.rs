use std::collections::HashMap;

use tract_onnx::prelude::*;

fn main() {
    let path = electret_peers::path();
    // tract is at its best with the shape fixed when it optimises.
    let mut plans = HashMap::new();
    electret_peers::serve(|ids| {
        let plan = plans.entry(ids.len()).or_insert_with(|| {
            tract_onnx::onnx()
                .model_for_path(&path)
                .and_then(|model| model.with_input_fact(0, i64::fact([1, ids.len()]).into()))
                .and_then(|model| model.into_optimized())
                .and_then(|model| model.into_runnable())
                .expect("a graph that tract can run")
        });
        let tensor = Tensor::from_shape(&[1, ids.len()], ids).expect("the shape of the ids");
        plan.run(tvec!(tensor.into())).expect("logits");
    });
}
