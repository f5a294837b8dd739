//! candle knows no ELECTRA; BERT of the same shape, without the projection, is the nearest.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

fn main() {
    let folder = std::path::PathBuf::from(electret_peers::path());
    let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["model_type"] = "bert".into();
    let config: Config = serde_json::from_value(config).expect("a BERT config");
    let device = Device::Cpu;
    let weights = candle_nn::VarMap::new();
    let builder = VarBuilder::from_varmap(&weights, DType::F32, &device);
    let model = BertModel::load(builder, &config).expect("a model");
    electret_peers::serve(|ids| {
        let ids = Tensor::new(ids, &device).and_then(|ids| ids.unsqueeze(0)).expect("ids");
        let types = ids.zeros_like().expect("types");
        model.forward(&ids, &types, None).expect("hidden states");
    });
}
