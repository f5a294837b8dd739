//! The line protocol of all runners: `TOKENS RUNS` comes in, the milliseconds of each run go out.

use std::io::BufRead;
use std::time::Instant;

/// Answers lines of stdin with times of `run`, which takes token ids; the first run of a line is not counted.
pub fn serve(mut run: impl FnMut(&[i64])) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("stdin is text");
        let mut numbers =
            line.split_whitespace().map(|word| word.parse::<usize>().expect("two numbers a line"));
        let (tokens, runs) = (numbers.next().expect("tokens"), numbers.next().expect("runs"));
        let ids: Vec<i64> = (0..tokens).map(|index| (index * 7919 % 30522) as i64).collect();
        run(&ids);
        let times: Vec<String> = (0..runs)
            .map(|_| {
                let start = Instant::now();
                run(&ids);
                (start.elapsed().as_secs_f64() * 1e3).to_string()
            })
            .collect();
        println!("{}", times.join(" "));
    }
}

/// The model's path, the one argument.
pub fn path() -> String {
    std::env::args().nth(1).expect("the model's path is the argument")
}
