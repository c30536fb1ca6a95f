//! A shop's invoices, lived on the real thing: the small shop's whole life is compared, and a lie about it is noticed.

use holdfast_e2e::{
    Role, Topology,
    replay::{
        check, invoice,
        live::{self, People},
        plan::Plan,
    },
};
use indicatif::ProgressBar;

use crate::shop::Shop;

const INVOICES: &str = "\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,85123a,HOLDER,6,12/1/10 8:26,2.55,17850,United Kingdom
1,85123A,HOLDER,2,12/1/10 8:26,2.55,17850,United Kingdom
1,71053,LANTERN,1,12/1/10 8:26,3.39,17850,United Kingdom
1,POST,POSTAGE,1,12/1/10 8:26,18,17850,United Kingdom
2,71053,LANTERN,3,12/1/10 9:00,4.25,,United Kingdom
C3,85123A,HOLDER,-8,12/1/10 10:00,2.55,17850,United Kingdom
C3,71053,LANTERN,-1,12/1/10 10:00,3.39,17850,United Kingdom
4,71053,LANTERN,5,12/1/10 11:00,4.25,17850,United Kingdom
C5,71053,LANTERN,-2,12/1/10 12:00,4.25,17850,United Kingdom
C6,71053,LANTERN,-4,12/1/10 13:00,4.25,17850,United Kingdom
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_shop_ends_as_its_invoices_say_and_a_penny_off_is_noticed() -> anyhow::Result<()> {
    let shop = Shop::open(Topology::AllInOne, &[]).await?;
    shop.watched(async |shop: &Shop| {
        let mut plan = Plan::of(invoice::read(INVOICES.as_bytes(), "GBP".parse()?)?)?;
        let people = People {
            admin: shop.admin.clone(),
            staff: shop.staff.clone(),
            buyers: shop.sandbox.people(Role::User, plan.accounts).await?,
        };
        let bar = ProgressBar::hidden();
        live::open(&plan, &people, &bar).await?;
        let lived = live::live(&plan, &people, &bar).await?;
        let differences = check::check(&plan, &lived, &people, &bar).await?;
        assert!(differences.is_empty(), "{differences:#?}");
        let refunded: Vec<i64> = plan.orders.iter().map(|order| order.refunded).collect();
        assert_eq!(refunded, [8 * 255 + 339, 0, 2 * 425]);

        plan.orders[1].total.amount += 1;
        plan.products[0].variants[0].returned += 1;
        let differences = check::check(&plan, &lived, &people, &bar).await?;
        // The total of the order; units sold and left of the variant.
        assert_eq!(differences.len(), 3, "{differences:#?}");
        Ok(())
    })
    .await
}
