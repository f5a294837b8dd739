use electret::train::{corpus::*, trainer::*, optimizer::Adam, objective::Objective};
#[cfg(feature = "tch")]
type Backend = burn::backend::Autodiff<burn::backend::LibTorch>;
#[cfg(not(feature = "tch"))]
type Backend = burn::backend::Autodiff<burn::backend::Flex>;
fn main() -> anyhow::Result<()> {
    env_logger::Builder::new().filter_level(log::LevelFilter::Info).init();
    let a: Vec<String> = std::env::args().collect();
    if a[1] == "corpus" {
        let m = build(&BuildOptions { sources: a[3..].iter().map(Into::into).collect(), out: (&a[2]).into(), vocab: None, vocab_size: 8192, sequence: 128, seed: 1 })?;
        println!("{m:?}");
    } else {
        let corpus = Corpus::open(a[2].as_ref())?;
        let run = Run { preset: "tiny".into(), steps: a[4].parse()?, batch_size: a[5].parse()?, dropout: 0.0, seed: 1, objective: Objective::default(), adam: Adam { learning_rate: a[6].parse()?, warmup_steps: a[7].parse()?, ..Default::default() } };
        run.train::<Backend>(&corpus, a[3].as_ref(), Pace { report_every: 20, checkpoint_every: 500, stop_at: a.get(8).map(|s| s.parse().unwrap()) }, &Default::default())?;
    }
    Ok(())
}
