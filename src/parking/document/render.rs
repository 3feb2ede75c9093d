//! Renders documents, line by line, into anything that takes bytes.

use super::amounts::{DocumentTotals, LineAmount};
use super::error::DocumentError;
use super::layout_1::{self, LineWords};
use super::line::{DocumentLine, LineCorrection};
use super::rendering::Rendering;
use super::{DocumentHead, LAYOUT};
use crate::parking::Month;
use crate::parking::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;

/// Writes a document to `out`: the head at once, each line as it comes, and the end at [`Renderer::finish`].
pub struct Renderer<'h, W> {
    rendering: Rendering,
    head: &'h DocumentHead,
    check: SumCheck,
    /// Of the line that is being rendered.
    buffer: Vec<u8>,
    out: W,
}

impl<'h, W: Write> Renderer<'h, W> {
    pub fn new(
        rendering: Rendering,
        head: &'h DocumentHead,
        out: W,
    ) -> Result<Renderer<'h, W>, DocumentError> {
        if head.layout != LAYOUT {
            return Err(DocumentError::Layout(head.layout));
        }
        let mut renderer = Renderer { rendering, head, check: SumCheck::default(), buffer: Vec::new(), out };
        layout_1::begin(rendering, &mut renderer.buffer, head)?;
        renderer.write_buffer()?;
        Ok(renderer)
    }

    /// Writes a line. On `Err` what was written so far is not a document.
    pub fn line(&mut self, line: &DocumentLine) -> Result<(), DocumentError> {
        self.line_with(line, &LineWords::new(self.head, line))
    }

    fn line_with(&mut self, line: &DocumentLine, words: &LineWords) -> Result<(), DocumentError> {
        self.check.add(&self.head.totals, line)?;
        layout_1::line(self.rendering, &mut self.buffer, self.head, line, words, self.check.lines)?;
        self.write_buffer()
    }

    /// Writes the end. `Err(Damaged)`: the lines do not make the totals, and what was written is not a document.
    pub fn finish(mut self) -> Result<W, DocumentError> {
        self.check.compare(self.head)?;
        layout_1::end(self.rendering, &mut self.buffer, self.head)?;
        self.write_buffer()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_buffer(&mut self) -> Result<(), DocumentError> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Renders a whole document; an error of `lines` ends it.
pub fn render<W: Write, E: From<DocumentError>>(
    rendering: Rendering,
    head: &DocumentHead,
    lines: impl IntoIterator<Item = Result<DocumentLine, E>>,
    out: W,
) -> Result<W, E> {
    let mut renderer = Renderer::new(rendering, head, out)?;
    for line in lines {
        renderer.line(&line?)?;
    }
    Ok(renderer.finish()?)
}

/// The BLAKE3 digests of all renderings of a document. They are recorded with it: a rendering that has another one is not what was
/// issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests([[u8; 32]; Rendering::ALL.len()]);

impl Digests {
    /// Goes over the lines once.
    pub fn of<E: From<DocumentError>>(
        head: &DocumentHead,
        lines: impl IntoIterator<Item = Result<DocumentLine, E>>,
    ) -> Result<Digests, E> {
        let mut all = Vec::with_capacity(Rendering::ALL.len());
        for rendering in Rendering::ALL {
            all.push(Renderer::new(rendering, head, blake3::Hasher::new())?);
        }
        for line in lines {
            let line = line?;
            let words = LineWords::new(head, &line);
            for renderer in &mut all {
                renderer.line_with(&line, &words)?;
            }
        }
        let mut digests = [[0; 32]; Rendering::ALL.len()];
        for (digest, renderer) in digests.iter_mut().zip(all) {
            *digest = renderer.finish()?.finalize().into();
        }
        Ok(Digests(digests))
    }

    pub fn get(&self, rendering: Rendering) -> [u8; 32] {
        self.0[rendering as usize]
    }
}

/// Adds up the lines that are rendered.
#[derive(Default)]
struct SumCheck {
    lines: u64,
    /// Gross and net by the number of a rate and the month of supply.
    sums: BTreeMap<(u16, Month), [i128; 2]>,
}

impl SumCheck {
    fn add(&mut self, totals: &DocumentTotals, line: &DocumentLine) -> Result<(), DocumentError> {
        self.lines += 1;
        let damaged = |what: &str| Err(DocumentError::Damaged(format!("its line {} {what}", self.lines)));
        let LineAmount { rate, gross, net } = line.amount;
        if let Some(LineCorrection { before, now, .. }) = line.correction
            && minor(now) - minor(before) != minor(gross)
        {
            return damaged("is not the difference that it corrects");
        }
        match rate {
            None if gross == Amount::ZERO && net == Amount::ZERO => {}
            Some(rate) if usize::from(rate) < totals.rates.len() => {
                let sum = self.sums.entry((rate, line.month)).or_default();
                *sum = [sum[0] + minor(gross), sum[1] + minor(net)];
            }
            _ => return damaged("has no VAT rate"),
        }
        Ok(())
    }

    fn compare(&self, head: &DocumentHead) -> Result<(), DocumentError> {
        let mut rates = vec![[0; 2]; head.totals.rates.len()];
        let mut total = [0; 2];
        for (&(rate, _), &sum) in &self.sums {
            for all in [&mut rates[usize::from(rate)], &mut total] {
                *all = [all[0] + sum[0], all[1] + sum[1]];
            }
        }
        let totals = &head.totals;
        let supplies = self.sums.iter().map(|(&(rate, month), &[gross, net])| {
            (&totals.rates[usize::from(rate)].rate, month, net, gross - net)
        });
        let of_head = head.supplies.iter();
        let of_head = of_head.map(|sum| (&sum.basis, sum.month, minor(sum.net), minor(sum.vat)));
        let add_up = self.lines == totals.lines
            && totals.rates.iter().map(|sum| [minor(sum.gross), minor(sum.net)]).eq(rates)
            && [minor(totals.gross), minor(totals.net)] == total
            && of_head.eq(supplies);
        if add_up { Ok(()) } else { Err(DocumentError::Damaged("its lines do not make its totals".into())) }
    }
}

fn minor(amount: Amount) -> i128 {
    i128::from(amount.minor())
}
