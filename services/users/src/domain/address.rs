//! A place that somebody has things sent to.

use holdfast_kernel::{Id, Timestamp, id};
use serde::{Deserialize, Serialize};

use crate::error::UsersError;

/// Addresses a person keeps at most.
pub(crate) const ADDRESSES_MAX: i64 = 50;

const NAME_MAX_CHARS: usize = 100;
const LINE_MAX_CHARS: usize = 200;
const POSTAL_CODE_MAX_CHARS: usize = 20;
const PHONE_MAX_CHARS: usize = 32;
const LAT_MAX_DEGREES: f64 = 90.0;
const LNG_MAX_DEGREES: f64 = 180.0;

/// ISO 3166-1 alpha-2.
const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY \
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK \
    FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR \
    IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK \
    ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM \
    PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF \
    TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// An address somebody keeps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Address {
    pub(crate) id: Id<id::Address>,
    pub(crate) user: Id<id::User>,
    pub(crate) postal: PostalAddress,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What stands on the parcel, and where that is. Sealed as it is written here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PostalAddress {
    pub(crate) name: String,
    pub(crate) line1: String,
    pub(crate) line2: String,
    pub(crate) city: String,
    pub(crate) region: String,
    pub(crate) postal_code: String,
    pub(crate) country: String,
    pub(crate) phone: String,
    pub(crate) location: Option<Location>,
}

/// A place on earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Location {
    pub(crate) lat: f64,
    pub(crate) lng: f64,
}

impl Address {
    /// The address as it reads now; what it reads already changes nothing.
    ///
    /// `expected` is the version the caller looked at, if they said so.
    pub(crate) fn change(
        self,
        postal: PostalAddress,
        expected: Option<i64>,
    ) -> Result<Self, UsersError> {
        self.is_at(expected)?;
        let postal = postal.check()?;
        if postal == self.postal {
            return Ok(self);
        }
        Ok(Self {
            postal,
            version: self.version + 1,
            ..self
        })
    }

    /// Fails when it is at another version than expected.
    pub(crate) fn is_at(&self, expected: Option<i64>) -> Result<(), UsersError> {
        match expected {
            Some(expected) if expected != self.version => Err(UsersError::AddressChanged {
                expected,
                actual: self.version,
            }),
            _ => Ok(()),
        }
    }
}

impl PostalAddress {
    /// The address with white space around its parts taken away, if every part is within its bounds.
    pub(crate) fn check(self) -> Result<Self, UsersError> {
        let country = part("country", &self.country, 2, 2)?.to_ascii_uppercase();
        if !COUNTRIES.split(' ').any(|known| known == country) {
            return Err(UsersError::CountryRefused { got: country });
        }
        let phone = part("phone", &self.phone, 0, PHONE_MAX_CHARS)?;
        let is_dialled = |letter: char| letter.is_ascii_digit() || "+-(). ".contains(letter);
        if !phone.chars().all(is_dialled) {
            return Err(UsersError::PhoneRefused);
        }
        if let Some(Location { lat, lng }) = self.location {
            // A number that is none is within no bounds.
            for (field, got, most) in [
                ("location.lat", lat, LAT_MAX_DEGREES),
                ("location.lng", lng, LNG_MAX_DEGREES),
            ] {
                if !(-most..=most).contains(&got) {
                    return Err(UsersError::LocationRefused { field, got, most });
                }
            }
        }
        Ok(Self {
            name: part("name", &self.name, 1, NAME_MAX_CHARS)?,
            line1: part("line1", &self.line1, 1, LINE_MAX_CHARS)?,
            line2: part("line2", &self.line2, 0, LINE_MAX_CHARS)?,
            city: part("city", &self.city, 1, NAME_MAX_CHARS)?,
            region: part("region", &self.region, 0, NAME_MAX_CHARS)?,
            postal_code: part("postal_code", &self.postal_code, 0, POSTAL_CODE_MAX_CHARS)?,
            country,
            phone,
            location: self.location,
        })
    }
}

fn part(field: &'static str, text: &str, least: usize, most: usize) -> Result<String, UsersError> {
    let text = text.trim();
    let chars = text.chars().count();
    if !(least..=most).contains(&chars) || text.chars().any(char::is_control) {
        return Err(UsersError::PartRefused {
            field,
            chars,
            least,
            most,
        });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> PostalAddress {
        PostalAddress {
            name: " Ada Lovelace ".to_owned(),
            line1: "12 St James's Square".to_owned(),
            line2: String::new(),
            city: "London".to_owned(),
            region: String::new(),
            postal_code: "SW1Y 4JH".to_owned(),
            country: "gb".to_owned(),
            phone: "+44 (0)20 7946-0958".to_owned(),
            location: Some(Location {
                lat: 51.5072,
                lng: -0.1357,
            }),
        }
    }

    #[test]
    fn an_address_is_taken_trimmed_with_its_country_in_capitals() {
        let taken = home().check().expect("an address");
        assert_eq!(
            (taken.name.as_str(), taken.country.as_str()),
            ("Ada Lovelace", "GB")
        );
        assert_eq!(taken.clone().check().expect("the same"), taken);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_the_name_of_its_field() {
        type Change = fn(&mut PostalAddress);
        let table: [(&str, Change); 12] = [
            ("name", |home| home.name = "  ".to_owned()),
            ("line1", |home| home.line1 = "x".repeat(201)),
            ("line2", |home| home.line2 = "a\nb".to_owned()),
            ("city", |home| home.city = String::new()),
            ("region", |home| home.region = "x".repeat(101)),
            ("postal_code", |home| home.postal_code = "x".repeat(21)),
            ("country", |home| home.country = "UK".to_owned()),
            ("country", |home| home.country = "A ".to_owned()),
            ("country", |home| home.country = "GBR".to_owned()),
            ("phone", |home| home.phone = "call me".to_owned()),
            ("location.lat", |home| {
                home.location = Some(Location {
                    lat: 90.1,
                    lng: 0.0,
                });
            }),
            ("location.lng", |home| {
                home.location = Some(Location {
                    lat: 0.0,
                    lng: f64::NAN,
                });
            }),
        ];
        for (field, change) in table {
            let mut home = home();
            change(&mut home);
            let refused = home.check().expect_err(field).to_string();
            assert!(
                refused.starts_with(&format!("{field}: ")),
                "{field}: {refused}"
            );
        }
    }

    #[test]
    fn there_are_249_countries_in_order() {
        let known: Vec<&str> = COUNTRIES.split(' ').collect();
        assert_eq!(known.len(), 249);
        assert!(known.is_sorted() && known.iter().all(|code| code.len() == 2));
    }
}
