//! A [`Report`] on one page that needs nothing else.

use std::fmt::Write;

use super::report::{Change, LayerReport, Report, SHOWN};

/// What a page looks like.
pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;color:#222}\
svg{margin:0 12px 12px 0}pre{background:#f4f4f4;padding:1em;overflow:auto}\
td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}\
ins{text-decoration:none;background:#fd9;padding:0 .15em}b{border-bottom:3px solid #c50;font-weight:inherit}\
small{color:#777}";

/// Pixels of the longest bar.
const WIDTH: f64 = 420.0;
/// Pixels from one bar to the next.
const PITCH: usize = 22;

impl Report {
    /// The page; `title` is the model's name.
    pub fn page(&self, title: &str) -> String {
        let mut page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title><style>{STYLE}</style>\
             <h1>{0} and its f32 source</h1><p>{1} sentences, {2} tokens. Cosine of the sentences' mean hidden states: \
             {3:.6} on average, {4:.6} at worst. {5:.2} % of all decisions agree.</p>",
            escaped(title),
            self.sentences,
            self.tokens,
            self.mean_cosine,
            self.min_cosine,
            self.agreement * 100.0
        );
        bars(&mut page, "relative error of the hidden states", &self.layers, |layer| layer.relative_error);
        bars(&mut page, "largest difference of one value", &self.layers, |layer| layer.max_abs_error);
        bars(&mut page, "1 − smallest cosine of a token", &self.layers, |layer| 1.0 - layer.min_cosine);
        page.push_str(
            "<h2>Decisions</h2><table><tr><th>head<th>decisions<th>agree<th>largest logit error</tr>",
        );
        for head in &self.heads {
            let (name, agreement) = (head.head, head.agreement * 100.0);
            let _ = write!(
                page,
                "<tr><td>{name}<td>{}<td>{agreement:.2} %<td>{:.4}</tr>",
                head.decisions, head.max_abs_error
            );
        }
        page.push_str("</table>");
        if !self.changed.is_empty() {
            let count = self.changed.len();
            let first = if count == SHOWN { format!(", the first {SHOWN}") } else { String::new() };
            let _ = write!(
                page,
                "<h2>What changed{first}</h2><table><tr><th>head<th>sentence<th>f32 source<th>this model</tr>",
            );
            for change in &self.changed {
                let (head, text) = (change.head, marked(change));
                let (reference, model) = (escaped(&change.reference), escaped(&change.model));
                let _ = write!(page, "<tr><td>{head}<td>{text}<td>{reference}<td>{model}</tr>");
            }
            page.push_str("</table>");
        }
        page.push_str("</html>");
        page
    }
}

/// A bar for the embeddings and each layer.
fn bars(page: &mut String, title: &str, layers: &[LayerReport], value: impl Fn(&LayerReport) -> f64) {
    let largest = layers.iter().map(&value).fold(f64::MIN_POSITIVE, f64::max);
    let height = 24 + layers.len() * PITCH;
    let _ = write!(
        page,
        "<svg width=560 height={height} role=img aria-label=\"{title}\" font-size=12><text x=80 y=14>{title}</text>"
    );
    for (index, layer) in layers.iter().enumerate() {
        let name = if index == 0 { "embeddings".to_owned() } else { format!("layer {index}") };
        let (value, y) = (value(layer), 22 + index * PITCH);
        let width = WIDTH * value / largest;
        let _ = write!(
            page,
            "<text x=74 y={0} text-anchor=end>{name}</text>\
             <rect x=80 y={y} width={width:.1} height=16 fill=#36c /><text x={1:.1} y={0}>{value:.5}</text>",
            y + 13,
            84.0 + width
        );
    }
    page.push_str("</svg>");
}

/// The sentence with the token that a change is about.
fn marked(change: &Change) -> String {
    let text = change.text.as_str();
    let parts = || {
        let token = text.get(change.token.clone()).filter(|token| !token.is_empty())?;
        Some((text.get(..change.token.start)?, token, text.get(change.token.end..)?))
    };
    match parts() {
        Some((before, token, after)) => {
            format!("{}<ins>{}</ins>{}", escaped(before), escaped(token), escaped(after))
        }
        None => escaped(text),
    }
}

/// Text as it stands in HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
