use electret::train::{corpus::*, trainer::*, optimizer::Adam, objective::{Objective, Kind}};
#[cfg(feature = "tch")]
type Backend = burn::backend::Autodiff<burn::backend::LibTorch>;
#[cfg(not(feature = "tch"))]
type Backend = burn::backend::Autodiff<burn::backend::Flex>;
fn main() -> anyhow::Result<()> {
    env_logger::Builder::new().filter_level(log::LevelFilter::Info).init();
    let a: Vec<String> = std::env::args().collect();
        let corpus = Corpus::open(a[2].as_ref())?;
        let run = Run { init_from: a.get(9).map(|s| s.into()), preset: "tiny".into(), steps: a[4].parse()?, batch_size: a[5].parse()?, dropout: 0.0, seed: 1, objective: Objective{ kind: if a[8] == "mlm" {Kind::Mlm} else {Kind::Electra}, ..Default::default()}, adam: Adam { learning_rate: a[6].parse()?, warmup_steps: a[7].parse()?, ..Default::default() } };
        run.train::<Backend>(&corpus, a[3].as_ref(), Pace { report_every: 20, checkpoint_every: 500, stop_at: None }, &Default::default())?;
    Ok(())
}
