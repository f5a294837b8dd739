use rten::{Model, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

fn main() {
    let model = Model::load_file(electret_peers::path()).expect("an ONNX graph");
    let input = model.input_ids()[0];
    let output = model.output_ids()[0];
    let options = RunOptions::default().with_thread_pool(Some(ThreadPool::with_num_threads(1).into()));
    electret_peers::serve(|ids| {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let tensor = NdTensor::from_data([1, ids.len()], ids);
        model.run(vec![(input, tensor.view().into())], &[output], Some(options.clone())).expect("logits");
    });
}
