//! `report.html`: a run's curves and some of its verdicts on one page that needs nothing else.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::corpus::Corpus;
use super::curve::{Row, Verdict, rows};
use super::run::Run;
use crate::import::write_atomically;
use crate::quantize::page::{STYLE, escaped};

/// Size of a chart, in pixels.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 200.0;

/// A chart: its title, and the columns of the curve that it shows, by their places in [`Row::values`].
const CHARTS: [(&str, &[(usize, &str)]); 6] = [
    ("cross-entropy of the generator, nats", &[(0, "mlm_loss")]),
    ("loss of the discriminator, nats", &[(1, "disc_loss")]),
    ("replaced tokens: ROC AUC, precision, recall", &[(3, "AUC"), (4, "precision"), (5, "recall")]),
    ("generator's accuracy", &[(2, "accuracy")]),
    ("learning rate", &[(7, "rate")]),
    ("tokens a second", &[(8, "tokens/s")]),
];

const COLOURS: [&str; 3] = ["#0b6", "#36c", "#c50"];

/// Writes the page of a run into its folder.
pub fn write(run: &Run, corpus: &Corpus, folder: &Path, sentences: &[Vec<Verdict>]) -> Result<()> {
    let curve = rows(folder)?;
    let mut page = String::new();
    let last = curve.last().map_or(0, |row| row.step);
    let shape = run.config(corpus)?;
    write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><title>electret run</title><style>{STYLE}</style>\
         <h1>{} · {} × {} · {:?}</h1><p>step {last} of {}</p>",
        escaped(&run.preset),
        shape.num_hidden_layers,
        shape.hidden_size,
        run.objective.kind,
        run.steps
    )?;
    for (title, columns) in CHARTS {
        chart(&mut page, title, columns, &curve)?;
    }
    if !sentences.is_empty() {
        page.push_str(
            "<h2>What was replaced, what was suspected</h2><p><ins>replaced</ins> by the generator (what stood there \
             <small>in grey</small>), <b>suspected</b> by the discriminator at more than one half</p><table>",
        );
        for sentence in sentences {
            write!(page, "<tr><td>{}</td></tr>", marked(corpus, sentence))?;
        }
        page.push_str("</table>");
    }
    write!(page, "<h2>Settings</h2><pre>{}</pre></html>", escaped(&toml::to_string(run)?))?;
    write_atomically(&folder.join("report.html"), page.as_bytes())?;
    Ok(())
}

/// A sentence with its replaced and its suspected pieces marked.
fn marked(corpus: &Corpus, sentence: &[Verdict]) -> String {
    let piece = |id: u32| corpus.pieces.get(id as usize).map_or("?", String::as_str);
    let mut text = String::new();
    for verdict in sentence {
        let read = piece(verdict.read);
        let space = if read.starts_with("##") { "" } else { " " };
        let mut word = escaped(read.trim_start_matches("##"));
        if verdict.logit > 0.0 {
            word = format!("<b>{word}</b>");
        }
        if verdict.read != verdict.original {
            word = format!("<ins>{word}</ins> <small>{}</small>", escaped(piece(verdict.original)));
        }
        text.push_str(space);
        text.push_str(&word);
    }
    text
}

/// One chart; nothing where no column has a value.
fn chart(page: &mut String, title: &str, columns: &[(usize, &str)], curve: &[Row]) -> Result<()> {
    let values = |column: usize| {
        curve
            .iter()
            .map(move |row| (row.step as f64, row.values[column]))
            .filter(|(_, value)| value.is_finite())
    };
    let all = || columns.iter().flat_map(|&(column, _)| values(column));
    if all().next().is_none() {
        return Ok(());
    }
    let low = all().map(|(_, value)| value).fold(f64::INFINITY, f64::min);
    let high = all().map(|(_, value)| value).fold(f64::NEG_INFINITY, f64::max);
    let span = if high > low { high - low } else { 1.0 };
    let steps = curve.last().map_or(1.0, |row| row.step.max(1) as f64);
    write!(
        page,
        "<svg width={} height={} role=img aria-label=\"{title}\" font-size=12><text x=60 y=14>{title}</text>\
         <text x=54 y=34 text-anchor=end>{}</text><text x=54 y={} text-anchor=end>{}</text>\
         <text x={} y={} text-anchor=end>step {steps}</text>\
         <path d=\"M60 24V{}H{}\" fill=none stroke=#999 />",
        WIDTH,
        HEIGHT + 40.0,
        brief(high),
        HEIGHT + 24.0,
        brief(low),
        WIDTH - 4.0,
        HEIGHT + 38.0,
        HEIGHT + 24.0,
        WIDTH - 4.0
    )?;
    for (index, &(column, name)) in columns.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        write!(page, "<polyline fill=none stroke={colour} stroke-width=1.5 points=\"")?;
        for (step, value) in values(column) {
            let x = 60.0 + (WIDTH - 64.0) * step / steps;
            let y = 24.0 + HEIGHT * (high - value) / span;
            write!(page, "{x:.1},{y:.1} ")?;
        }
        page.push_str("\"/>");
        if columns.len() > 1 {
            write!(page, "<text x={} y={} fill={colour}>{name}</text>", 70 + 80 * index, HEIGHT + 38.0)?;
        }
    }
    page.push_str("</svg>");
    Ok(())
}

/// A number in few letters.
fn brief(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.01 => format!("{value:.1e}"),
        size if size < 100.0 => format!("{value:.3}"),
        _ => format!("{value:.0}"),
    }
}
