//! What each line of the file becomes, by rule: part of an order, part of a refund, or something no shop can take, under
//! the rule that says so.
//!
//! Rules, the first that fits:
//!
//! | a line | is |
//! |---|---|
//! | whose fields cannot be read | malformed |
//! | whose code is one of [`NOT_GOODS`] | what stands there: postage, a fee, an adjustment |
//! | whose code has no four digits in a row, or is no SKU | of an unknown code |
//! | whose price is nothing or less | without a price |
//! | that cancels and has a customer who bought the same code at the same price before, with enough left on one order | a refund, on the oldest such order |
//! | that cancels otherwise | an unmatched cancellation |
//! | whose quantity is 0 or less | without units |
//! | else | a sale |
//!
//! A cancellation is taken whole or not at all: one that exceeds what is left on every single order is unmatched.

use std::{collections::BTreeMap, fmt};

use holdfast_kernel::{Money, Sku, money::MoneyError};

use super::invoice::{Invoices, Line};

/// Codes under which no goods were sold, and what was.
const NOT_GOODS: &[(&str, Class)] = &[
    ("POST", Class::Postage),
    ("DOT", Class::Postage),
    ("C2", Class::Postage),
    ("AMAZONFEE", Class::Fee),
    ("BANK CHARGES", Class::Fee),
    ("CRUK", Class::Fee),
    ("M", Class::Adjustment),
    ("D", Class::Adjustment),
    ("S", Class::Adjustment),
    ("B", Class::Adjustment),
    ("PADS", Class::Adjustment),
];
/// Digits in a row that the shop's codes of goods have at least.
const CODE_DIGITS_MIN: usize = 4;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Part of an order.
    Sale,
    /// Units that go back on an earlier order.
    Refund,
    /// Units that go back, and no order of that customer, code and price has as many left.
    UnmatchedCancellation,
    /// Nothing was asked for it: breakage, samples, corrections of stock.
    NoPrice,
    /// No units were sold.
    NoUnits,
    /// Carriage of any kind.
    Postage,
    /// Of banks and marketplaces.
    Fee,
    /// Entered by hand: discounts, corrections, samples.
    Adjustment,
    /// None of the shop's codes.
    UnknownCode,
    /// A row that cannot be read.
    Malformed,
}

/// How much of a class there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Lines of the file.
    pub lines: usize,
    /// Units on them; negative ones went back.
    pub units: i64,
    /// Quantity × price, summed, in minor units.
    pub value: i64,
}

/// The shop's whole life: what it sells, who buys what, what goes back.
#[derive(Debug, Default)]
pub struct Plan {
    /// A product per code, in order of codes.
    pub products: Vec<Product>,
    /// An order per sale invoice, in the file's order.
    pub orders: Vec<Order>,
    /// A refund per cancellation and order it takes from, in the file's order.
    pub refunds: Vec<Refund>,
    /// Accounts needed: a customer's one each, and an own one for each invoice without customer.
    pub accounts: usize,
    /// Every line of the file, counted once.
    pub classes: BTreeMap<Class, Count>,
    /// The rows that are neither sale nor refund.
    pub left_out: Vec<(usize, Class)>,
}

/// What is sold under one code.
#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    /// The shop's code, in upper case.
    pub code: String,
    /// The name it was first sold under.
    pub name: String,
    /// One for each price it was sold at.
    pub variants: Vec<Variant>,
}

/// A code at a price.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// `<code>@<price>`, such as `85123A@2.55`.
    pub sku: Sku,
    /// Of one unit.
    pub price: Money,
    /// All units ever sold of it: what the shop opens with.
    pub sold: i64,
    /// Units that came back: what is left in the end.
    pub returned: i64,
}

/// A sale invoice.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number in the file.
    pub invoice: String,
    /// Which account buys.
    pub account: usize,
    /// As they stand in the file; one SKU may stand there twice.
    pub lines: Vec<(Sku, i64)>,
    /// Their sum.
    pub total: Money,
    /// What of it comes back later, in minor units.
    pub refunded: i64,
}

/// A cancellation's share of one order.
#[derive(Debug, PartialEq, Eq)]
pub struct Refund {
    /// The cancelling invoice.
    pub invoice: String,
    /// The order that it takes from: an index into the plan's orders.
    pub order: usize,
    /// The units that come back; each SKU once.
    pub items: BTreeMap<Sku, i64>,
    /// Their price.
    pub amount: Money,
}

/// An account as the file knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Buyer {
    Customer(String),
    /// Nobody wrote down who; the same invoice has the same buyer.
    OfInvoice(String),
}

/// Units of one SKU that a buyer still has from an order.
struct Bought {
    order: usize,
    left: i64,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sale => "sale",
            Self::Refund => "refund",
            Self::UnmatchedCancellation => "unmatched cancellation",
            Self::NoPrice => "no price",
            Self::NoUnits => "no units",
            Self::Postage => "postage",
            Self::Fee => "fee",
            Self::Adjustment => "adjustment by hand",
            Self::UnknownCode => "unknown code",
            Self::Malformed => "malformed",
        })
    }
}

impl Plan {
    /// Plans the life that these invoices tell. Fails only on sums no shop can have.
    pub fn of(invoices: Invoices) -> Result<Self, MoneyError> {
        let Invoices {
            mut lines,
            malformed,
        } = invoices;
        // What is earlier in the file need not be earlier in time.
        lines.sort_by_key(|line| (line.at, line.row));
        let mut planner = Planner::default();
        for line in &lines {
            let class = planner.take(line)?;
            let value = line.price.times(line.quantity)?.amount;
            planner.plan.count(class, line.row, line.quantity, value);
        }
        for (row, _) in malformed {
            planner.plan.count(Class::Malformed, row, 0, 0);
        }
        Ok(planner.finish())
    }

    /// Every variant there is.
    pub fn variants(&self) -> impl Iterator<Item = &Variant> {
        self.products.iter().flat_map(|product| &product.variants)
    }

    fn count(&mut self, class: Class, row: usize, units: i64, value: i64) {
        let count = self.classes.entry(class).or_default();
        count.lines += 1;
        count.units += units;
        count.value += value;
        if !matches!(class, Class::Sale | Class::Refund) {
            self.left_out.push((row, class));
        }
    }
}

#[derive(Default)]
struct Planner {
    plan: Plan,
    accounts: BTreeMap<Buyer, usize>,
    order_of: BTreeMap<String, usize>,
    refund_of: BTreeMap<(String, usize), usize>,
    bought: BTreeMap<(usize, Sku), Vec<Bought>>,
    goods: BTreeMap<String, (String, BTreeMap<i64, Variant>)>,
}

impl Planner {
    fn take(&mut self, line: &Line) -> Result<Class, MoneyError> {
        if let Some((_, class)) = NOT_GOODS.iter().find(|(code, _)| *code == line.code) {
            return Ok(*class);
        }
        let Some(sku) = sku(line) else {
            return Ok(Class::UnknownCode);
        };
        if line.price.amount <= 0 {
            return Ok(Class::NoPrice);
        }
        if line.cancels() {
            return self.cancel(line, &sku);
        }
        if line.quantity <= 0 {
            return Ok(Class::NoUnits);
        }
        self.sell(line, sku)?;
        Ok(Class::Sale)
    }

    fn sell(&mut self, line: &Line, sku: Sku) -> Result<(), MoneyError> {
        let price = line.price.times(line.quantity)?;
        let number = match self.order_of.get(&line.invoice) {
            Some(number) => *number,
            None => self.open_order(line),
        };
        let order = &mut self.plan.orders[number];
        order.total = order.total.plus(price)?;
        order.lines.push((sku.clone(), line.quantity));
        let bought = self.bought.entry((order.account, sku.clone())).or_default();
        match bought.iter_mut().find(|bought| bought.order == number) {
            Some(bought) => bought.left += line.quantity,
            None => bought.push(Bought {
                order: number,
                left: line.quantity,
            }),
        }
        let (name, variants) = self.goods.entry(line.code.clone()).or_default();
        if name.is_empty() {
            line.description.trim().clone_into(name);
        }
        let variant = variants.entry(line.price.amount).or_insert(Variant {
            sku,
            price: line.price,
            sold: 0,
            returned: 0,
        });
        variant.sold += line.quantity;
        Ok(())
    }

    fn open_order(&mut self, line: &Line) -> usize {
        let buyer = match &line.customer {
            Some(customer) => Buyer::Customer(customer.clone()),
            None => Buyer::OfInvoice(line.invoice.clone()),
        };
        let next = self.accounts.len();
        let account = *self.accounts.entry(buyer).or_insert(next);
        let number = self.plan.orders.len();
        self.plan.orders.push(Order {
            invoice: line.invoice.clone(),
            account,
            lines: Vec::new(),
            total: Money::zero(line.price.currency),
            refunded: 0,
        });
        self.order_of.insert(line.invoice.clone(), number);
        number
    }

    fn cancel(&mut self, line: &Line, sku: &Sku) -> Result<Class, MoneyError> {
        let units = -line.quantity;
        let account = line
            .customer
            .clone()
            .and_then(|customer| self.accounts.get(&Buyer::Customer(customer)));
        let bought = account.and_then(|account| self.bought.get_mut(&(*account, sku.clone())));
        let enough =
            bought.and_then(|bought| bought.iter_mut().find(|bought| bought.left >= units));
        let Some(enough) = enough.filter(|_| units > 0) else {
            return Ok(Class::UnmatchedCancellation);
        };
        enough.left -= units;
        let price = line.price.times(units)?;
        let order = enough.order;
        let next = self.plan.refunds.len();
        let number = *self
            .refund_of
            .entry((line.invoice.clone(), order))
            .or_insert(next);
        if number == next {
            self.plan.refunds.push(Refund {
                invoice: line.invoice.clone(),
                order,
                items: BTreeMap::new(),
                amount: Money::zero(price.currency),
            });
        }
        let refund = &mut self.plan.refunds[number];
        *refund.items.entry(sku.clone()).or_default() += units;
        refund.amount = refund.amount.plus(price)?;
        self.plan.orders[order].refunded += price.amount;
        if let Some((_, variants)) = self.goods.get_mut(&line.code)
            && let Some(variant) = variants.get_mut(&line.price.amount)
        {
            variant.returned += units;
        }
        Ok(Class::Refund)
    }

    fn finish(self) -> Plan {
        let products = self
            .goods
            .into_iter()
            .map(|(code, (name, variants))| Product {
                name: if name.is_empty() { code.clone() } else { name },
                code,
                variants: variants.into_values().collect(),
            });
        Plan {
            products: products.collect(),
            accounts: self.accounts.len(),
            ..self.plan
        }
    }
}

/// The SKU of a code at a price; `None` where the code is none of the shop's goods.
fn sku(line: &Line) -> Option<Sku> {
    let mut run = 0;
    let has_digits = line.code.bytes().any(|letter| {
        run = if letter.is_ascii_digit() { run + 1 } else { 0 };
        run >= CODE_DIGITS_MIN
    });
    let price = line.price.to_string();
    let (amount, _) = price.split_once(' ')?;
    format!("{}@{amount}", line.code)
        .parse()
        .ok()
        .filter(|_| has_digits)
}

#[cfg(test)]
mod tests {
    use holdfast_kernel::Currency;

    use super::*;
    use crate::replay::invoice;

    fn plan(rows: &[&str]) -> Plan {
        let header =
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";
        let text = format!("{header}\n{}\n", rows.join("\n"));
        let gbp: Currency = "GBP".parse().expect("a currency");
        let invoices = invoice::read(text.as_bytes(), gbp).expect("a good file");
        Plan::of(invoices).expect("sums a shop can have")
    }

    fn lines(plan: &Plan, class: Class) -> usize {
        plan.classes.get(&class).map_or(0, |count| count.lines)
    }

    fn sku(text: &str) -> Sku {
        text.parse().expect("a SKU")
    }

    #[test]
    fn codes_are_folded_and_each_price_is_a_variant() {
        let plan = plan(&[
            "1,84970l,HOLDER,6,12/1/10 8:00,0.85,7,UK",
            "1,84970L,holder,2,12/1/10 8:00,0.85,7,UK",
            "2,84970L,HOLDER,3,12/1/10 9:00,1,8,UK",
        ]);
        assert_eq!(plan.products.len(), 1);
        assert_eq!(plan.products[0].name, "HOLDER");
        let variants: Vec<_> = plan.variants().map(|v| (v.sku.as_str(), v.sold)).collect();
        assert_eq!(variants, [("84970L@0.85", 8), ("84970L@1.00", 3)]);
        assert_eq!(plan.orders[0].lines.len(), 2, "as they stand in the file");
        assert_eq!(plan.orders[0].total.amount, 8 * 85);
    }

    #[test]
    fn a_customer_has_one_account_and_each_invoice_without_customer_its_own() {
        let plan = plan(&[
            "1,85123A,X,1,12/1/10 8:00,1,7,UK",
            "2,85123A,X,1,12/1/10 8:01,1,,UK",
            "3,85123A,X,1,12/1/10 8:02,1,7,UK",
            "4,85123A,X,1,12/1/10 8:03,1,,UK",
            "4,85123B,X,1,12/1/10 8:03,1,,UK",
        ]);
        let accounts: Vec<usize> = plan.orders.iter().map(|order| order.account).collect();
        assert_eq!(accounts, [0, 1, 0, 2]);
        assert_eq!(plan.accounts, 3);
    }

    #[test]
    fn a_cancellation_takes_from_the_oldest_order_with_enough_left() {
        let plan = plan(&[
            "1,85123A,X,2,12/1/10 8:00,1.50,7,UK",
            "2,85123A,X,5,12/1/10 8:01,1.50,7,UK",
            "3,85123A,X,9,12/1/10 8:02,1.50,7,UK",
            "C4,85123A,X,-3,12/1/10 8:03,1.50,7,UK",
            "C4,85123A,X,-2,12/1/10 8:03,1.50,7,UK",
            "C5,85123A,X,-2,12/1/10 8:04,1.50,7,UK",
        ]);
        let refunds: Vec<_> = plan
            .refunds
            .iter()
            .map(|refund| {
                (
                    refund.invoice.as_str(),
                    refund.order,
                    refund.items[&sku("85123A@1.50")],
                    refund.amount.amount,
                )
            })
            .collect();
        assert_eq!(
            refunds,
            [("C4", 1, 3, 450), ("C4", 0, 2, 300), ("C5", 1, 2, 300)]
        );
        let refunded: Vec<i64> = plan.orders.iter().map(|order| order.refunded).collect();
        assert_eq!(refunded, [300, 750, 0]);
        let variant = plan.variants().next().expect("one");
        assert_eq!((variant.sold, variant.returned), (16, 7));
    }

    #[test]
    fn lines_of_one_cancellation_and_order_are_one_refund() {
        let plan = plan(&[
            "1,85123A,X,5,12/1/10 8:00,1,7,UK",
            "1,85123B,X,5,12/1/10 8:00,2,7,UK",
            "C2,85123A,X,-1,12/1/10 8:01,1,7,UK",
            "C2,85123A,X,-1,12/1/10 8:01,1,7,UK",
            "C2,85123B,X,-1,12/1/10 8:01,2,7,UK",
        ]);
        assert_eq!(plan.refunds.len(), 1);
        assert_eq!(
            plan.refunds[0].items,
            [(sku("85123A@1.00"), 2), (sku("85123B@2.00"), 1)].into()
        );
        assert_eq!(plan.refunds[0].amount.amount, 400);
        assert_eq!(lines(&plan, Class::Refund), 3);
    }

    #[test]
    fn a_cancellation_of_more_of_others_of_another_price_or_too_early_is_unmatched() {
        let plan = plan(&[
            "C0,85123A,X,-1,12/1/10 7:00,1,7,UK",
            "1,85123A,X,2,12/1/10 8:00,1,7,UK",
            "2,85123A,X,2,12/1/10 8:00,1,,UK",
            "C3,85123A,X,-3,12/1/10 8:01,1,7,UK",
            "C4,85123A,X,-1,12/1/10 8:01,1,8,UK",
            "C5,85123A,X,-1,12/1/10 8:01,2,7,UK",
            "C6,85123A,X,-1,12/1/10 8:01,1,,UK",
            "C7,85123A,X,1,12/1/10 8:01,1,7,UK",
            "C8,85123A,X,-2,12/1/10 8:01,1,7,UK",
            "C9,85123A,X,-1,12/1/10 8:02,1,7,UK",
        ]);
        assert_eq!(lines(&plan, Class::UnmatchedCancellation), 7);
        assert_eq!(lines(&plan, Class::Refund), 1);
        let rows: Vec<usize> = plan.left_out.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [2, 5, 6, 7, 8, 9, 11]);
    }

    #[test]
    fn what_no_shop_can_take_is_classed_by_rule_and_counted() {
        let plan = plan(&[
            "1,POST,POSTAGE,1,12/1/10 8:00,18,7,UK",
            "1,dot,DOTCOM,1,12/1/10 8:00,18,7,UK",
            "1,C2,CARRIAGE,1,12/1/10 8:00,50,7,UK",
            "C2,AMAZONFEE,FEE,-1,12/1/10 8:00,13541.33,,UK",
            "3,BANK CHARGES,FEE,1,12/1/10 8:00,15,7,UK",
            "C4,D,Discount,-1,12/1/10 8:00,27.5,7,UK",
            "5,M,Manual,1,12/1/10 8:00,924.59,,UK",
            "A6,B,Adjust bad debt,1,12/1/10 8:00,-11062.06,,UK",
            "7,TEST001,test,1,12/1/10 8:00,4.5,7,UK",
            "8,85123A,damages,-9360,12/1/10 8:00,0,,UK",
            "9,85123A,X,-1,12/1/10 8:00,1,7,UK",
            "10,85123A,X,0,12/1/10 8:00,1,7,UK",
            "11,85123A,X,one,12/1/10 8:00,1,7,UK",
            "12,DCGS0076,SUNJAR,1,12/1/10 8:00,2.95,7,UK",
        ]);
        let counts: Vec<(Class, usize)> = plan
            .classes
            .iter()
            .map(|(class, count)| (*class, count.lines))
            .collect();
        assert_eq!(
            counts,
            [
                (Class::Sale, 1),
                (Class::NoPrice, 1),
                (Class::NoUnits, 2),
                (Class::Postage, 3),
                (Class::Fee, 2),
                (Class::Adjustment, 3),
                (Class::UnknownCode, 1),
                (Class::Malformed, 1),
            ]
        );
        assert_eq!(
            plan.orders.len(),
            1,
            "an invoice of such lines only is no order"
        );
        let all: usize = plan.classes.values().map(|count| count.lines).sum();
        assert_eq!(all, 14, "every line once");
    }
}
