//! The lines of an invoice file: `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country`.

use std::io::Read;

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use holdfast_kernel::{Currency, Money};
use jiff::civil::DateTime;
use serde::Deserialize;

const COLUMNS: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];
const DATE: &str = "%m/%d/%y %H:%M";
/// What a compressed file begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Largest file that is read, unpacked; a year of a busy shop is a tenth of it.
const FILE_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// A line as it stands in the file, its fields read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its row in the file; the first one holds the names.
    pub row: usize,
    /// The invoice it stands on. One that begins with `C` cancels.
    pub invoice: String,
    /// The shop's code of what was sold, in upper case.
    pub code: String,
    /// What the shop calls it.
    pub description: String,
    /// Units; negative ones go back.
    pub quantity: i64,
    /// When, as the shop's clock said.
    pub at: DateTime,
    /// Of one unit; may be nothing, and less than nothing where a debt was written off.
    pub price: Money,
    /// Who bought, if that was written down.
    pub customer: Option<String>,
}

/// What a file says, row by row.
#[derive(Debug, Default)]
pub struct Invoices {
    /// The lines that can be read, in the file's order.
    pub lines: Vec<Line>,
    /// Rows that cannot, and why.
    pub malformed: Vec<(usize, String)>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "InvoiceNo")]
    invoice: String,
    #[serde(rename = "StockCode")]
    code: String,
    #[serde(rename = "Description")]
    description: String,
    #[serde(rename = "Quantity")]
    quantity: String,
    #[serde(rename = "InvoiceDate")]
    date: String,
    #[serde(rename = "UnitPrice")]
    price: String,
    #[serde(rename = "CustomerID")]
    customer: String,
}

impl Line {
    /// Whether it stands on an invoice that takes back.
    pub fn cancels(&self) -> bool {
        self.invoice.starts_with(['C', 'c'])
    }
}

/// Reads a file, plain or compressed, whose prices are of `currency`. Fails only when it is no such file.
pub fn read(file: impl Read, currency: Currency) -> anyhow::Result<Invoices> {
    let bytes = bounded(file)?;
    if bytes.starts_with(&GZIP_MAGIC) {
        read_plain(&bounded(MultiGzDecoder::new(bytes.as_slice()))?, currency)
    } else {
        read_plain(&bytes, currency)
    }
}

fn bounded(file: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .context("read the invoices")?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        bail!("the invoices are longer than {FILE_MAX_BYTES} bytes");
    }
    Ok(bytes)
}

fn read_plain(text: &[u8], currency: Currency) -> anyhow::Result<Invoices> {
    let mut reader = csv::Reader::from_reader(text);
    let header = reader.headers().context("read the first row")?;
    if header.iter().ne(COLUMNS) {
        bail!(
            "the first row is {:?}, wanted {:?}",
            header.iter().collect::<Vec<_>>().join(","),
            COLUMNS.join(",")
        );
    }
    let mut invoices = Invoices::default();
    for (at, row) in reader.deserialize::<Row>().enumerate() {
        let row_number = at + 2;
        match row
            .map_err(anyhow::Error::from)
            .and_then(|row| read_line(row_number, row, currency))
        {
            Ok(line) => invoices.lines.push(line),
            Err(error) => invoices.malformed.push((row_number, format!("{error:#}"))),
        }
    }
    Ok(invoices)
}

fn read_line(row: usize, fields: Row, currency: Currency) -> anyhow::Result<Line> {
    let quantity = fields
        .quantity
        .parse()
        .with_context(|| format!("Quantity: got {:?}, want a whole number", fields.quantity))?;
    let at = DateTime::strptime(DATE, &fields.date)
        .with_context(|| format!("InvoiceDate: got {:?}, want 12/31/10 23:59", fields.date))?;
    let (sign, amount) = match fields.price.strip_prefix('-') {
        Some(amount) => (-1, amount),
        None => (1, fields.price.as_str()),
    };
    let price = Money::parse_major(amount, currency)
        .and_then(|price| price.times(sign))
        .context("UnitPrice")?;
    if fields.invoice.is_empty() {
        bail!("InvoiceNo: got nothing, want a number");
    }
    Ok(Line {
        row,
        invoice: fields.invoice,
        code: fields.code.trim().to_uppercase(),
        description: fields.description,
        quantity,
        at,
        price,
        customer: Some(fields.customer).filter(|customer| !customer.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const HEADER: &str =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn gbp() -> Currency {
        "GBP".parse().expect("a currency")
    }

    #[test]
    fn a_compressed_file_says_what_the_plain_one_says() {
        let plain =
            format!("{HEADER}1,84970l,\"HOLDER, ZINC\",6,12/1/10 8:26,2.5,17850,United Kingdom\n");
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(plain.as_bytes()).expect("memory takes it");
        let packed = packed.finish().expect("memory takes it");
        let from_plain = read(plain.as_bytes(), gbp()).expect("a good file");
        let from_packed = read(packed.as_slice(), gbp()).expect("a good file");
        assert_eq!(from_plain.lines, from_packed.lines);
        assert_eq!(
            from_plain.lines,
            [Line {
                row: 2,
                invoice: "1".to_owned(),
                code: "84970L".to_owned(),
                description: "HOLDER, ZINC".to_owned(),
                quantity: 6,
                at: jiff::civil::date(2010, 12, 1).at(8, 26, 0, 0),
                price: Money::new(250, gbp()),
                customer: Some("17850".to_owned()),
            }]
        );
    }

    #[test]
    fn rows_that_cannot_be_read_are_named_and_hide_no_other() {
        let rows = [
            "1,85123A,X,six,12/1/10 8:26,2.55,17850,UK",
            "1,85123A,X,6,1.12.2010,2.55,17850,UK",
            "1,85123A,X,6,12/1/10 8:26,2.555,17850,UK",
            "1,85123A,X,6,12/1/10 8:26,-11062.06,,UK",
            ",85123A,X,6,12/1/10 8:26,2.55,17850,UK",
            "1,85123A,X,6",
            "1,85123A,X,6,12/1/10 8:26,2.55,17850,UK",
        ];
        let text = format!("{HEADER}{}\n", rows.join("\n"));
        let invoices = read(text.as_bytes(), gbp()).expect("a file of invoices");
        let malformed: Vec<usize> = invoices.malformed.iter().map(|(row, _)| *row).collect();
        assert_eq!(malformed, [2, 3, 4, 6, 7]);
        let read: Vec<(usize, i64)> = invoices
            .lines
            .iter()
            .map(|line| (line.row, line.price.amount))
            .collect();
        assert_eq!(read, [(5, -1_106_206), (8, 255)]);
    }

    #[test]
    fn another_file_is_refused_by_its_first_row() {
        let refused = read("sku,name\nA,B\n".as_bytes(), gbp()).expect_err("no invoices");
        assert!(refused.to_string().contains("InvoiceNo"), "{refused}");
    }
}
