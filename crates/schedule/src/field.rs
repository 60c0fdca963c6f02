//! One field of a crontab expression, read as Celery reads it: numbers, names, ranges (also wrapped ones, as `fri-mon`), steps, lists.
//!
//! Mistakes that Celery accepts by accident are refused: a month's name among hours, a step of zero, a day's name among minutes.

use celery::spelling::nearest;

/// The values that a field may have.
#[derive(Debug)]
pub struct Kind {
    /// The name in messages and in Celery: `minute`, `hour`, `day_of_month`, `month_of_year`, `day_of_week`.
    pub name: &'static str,
    pub least: u32,
    pub most: u32,
    /// Full names in lower case, beginning with the name of `least`. An abbreviation of three letters or more is accepted.
    names: &'static [&'static str],
    /// Sunday is 0 and may be written as 7.
    sunday_is_seven: bool,
}

pub const MINUTE: Kind = Kind::numbers("minute", 0, 59);
pub const HOUR: Kind = Kind::numbers("hour", 0, 23);
pub const DAY_OF_MONTH: Kind = Kind::numbers("day_of_month", 1, 31);
pub const MONTH_OF_YEAR: Kind = Kind {
    names: &[
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ],
    ..Kind::numbers("month_of_year", 1, 12)
};
pub const DAY_OF_WEEK: Kind = Kind {
    names: &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"],
    sunday_is_seven: true,
    ..Kind::numbers("day_of_week", 0, 6)
};

/// The values of one field, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    bits: u64,
    /// Every part is `*` or `*/n`, so no particular value is named.
    pub starred: bool,
}

impl Field {
    pub fn has(self, value: u32) -> bool {
        self.bits >> value & 1 == 1
    }

    /// The least value that is not below `from`.
    pub fn next(self, from: u32) -> Option<u32> {
        let rest = self.bits.checked_shr(from)?;
        (rest != 0).then(|| from + rest.trailing_zeros())
    }

    pub fn first(self) -> u32 {
        self.bits.trailing_zeros()
    }

    /// The number of values.
    pub fn count(self) -> u32 {
        self.bits.count_ones()
    }
}

impl Kind {
    const fn numbers(name: &'static str, least: u32, most: u32) -> Self {
        Self { name, least, most, names: &[], sunday_is_seven: false }
    }

    /// # Errors
    /// A sentence that says what is wrong and what is allowed.
    pub fn parse(&self, text: &str) -> Result<Field, String> {
        let mut field = Field { bits: 0, starred: true };
        for part in text.split(',') {
            let (span, step) = match part.split_once('/') {
                Some((span, step)) => (span, self.step(part, step)?),
                None => (part, 1),
            };
            field.starred &= span == "*";
            let values = self.span(part, span, step)?;
            for value in values.iter().step_by(step) {
                field.bits |= 1 << value;
            }
        }
        Ok(field)
    }

    fn step(&self, part: &str, step: &str) -> Result<usize, String> {
        match step.parse() {
            Ok(step) if step > 0 => Ok(step),
            _ => Err(format!("{part:?} has the step {step:?}: a step is a whole number of at least 1")),
        }
    }

    /// The values of `*`, `a` or `a-b`, in the order in which a step counts them.
    fn span(&self, part: &str, span: &str, step: usize) -> Result<Vec<u32>, String> {
        if span == "*" {
            return Ok((self.least..=self.most).collect());
        }
        let Some((from, to)) = span.split_once('-') else {
            if step != 1 || part.contains('/') {
                return Err(format!(
                    "{part:?} has a step without a range: write */{step} or a range such as {}-{}/{step}",
                    self.least, self.most
                ));
            }
            return Ok(vec![self.value(span)?]);
        };
        let (from, to) = (self.value(from)?, self.end(to)?);
        if from <= to {
            return Ok((from..=to).map(|value| self.wrap(value)).collect());
        }
        Ok((from..=self.most).chain(self.least..=to).collect())
    }

    /// The end of a range: here a seven stays seven, so that it comes after Saturday.
    fn end(&self, text: &str) -> Result<u32, String> {
        if self.sunday_is_seven && text == "7" { Ok(7) } else { self.value(text) }
    }

    fn wrap(&self, value: u32) -> u32 {
        if self.sunday_is_seven { value % 7 } else { value }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let most = if self.sunday_is_seven { 7 } else { self.most };
            return match text.parse::<u32>() {
                Ok(value) if (self.least..=most).contains(&value) => Ok(self.wrap(value)),
                _ => Err(format!("{text} is out of range: {}", self.allowed())),
            };
        }
        self.named(text).ok_or_else(|| self.misspelt(text))
    }

    fn named(&self, text: &str) -> Option<u32> {
        let text = text.to_ascii_lowercase();
        let index = self.names.iter().position(|name| text.len() >= 3 && name.starts_with(&text))?;
        Some(self.least + u32::try_from(index).expect("at most twelve names"))
    }

    fn misspelt(&self, text: &str) -> String {
        let meant = nearest(text, self.names).map_or_else(String::new, |name| format!("; did you mean {name}?"));
        format!("{text:?} is not a value: {}{meant}", self.allowed())
    }

    fn allowed(&self) -> String {
        let names = match self.names {
            [first, .., last] => format!(", or {}-{}", &first[..3], &last[..3]),
            _ => String::new(),
        };
        let seven = if self.sunday_is_seven { " (Sunday is 0 or 7)" } else { "" };
        let most = if self.sunday_is_seven { 7 } else { self.most };
        format!("allowed are {}-{most}{seven}{names}", self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: &Kind, text: &str) -> Vec<u32> {
        let field = kind.parse(text).unwrap();
        (0..64).filter(|value| field.has(*value)).collect()
    }

    #[test]
    fn a_field_reads_as_celery_reads_it() {
        assert_eq!(values(&MINUTE, "*/15"), [0, 15, 30, 45]);
        assert_eq!(values(&HOUR, "8-17/4,22"), [8, 12, 16, 22]);
        assert_eq!(values(&HOUR, "22-3"), [0, 1, 2, 3, 22, 23]);
        assert_eq!(values(&DAY_OF_MONTH, "*/10"), [1, 11, 21, 31]);
        assert_eq!(values(&MONTH_OF_YEAR, "nov-feb/2"), [1, 11]);
        assert_eq!(values(&MONTH_OF_YEAR, "January,jun"), [1, 6]);
    }

    #[test]
    fn sunday_is_zero_and_seven() {
        assert_eq!(values(&DAY_OF_WEEK, "7"), [0]);
        assert_eq!(values(&DAY_OF_WEEK, "5-7"), [0, 5, 6]);
        assert_eq!(values(&DAY_OF_WEEK, "7-2"), [0, 1, 2]);
        assert_eq!(values(&DAY_OF_WEEK, "0-7"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(values(&DAY_OF_WEEK, "fri-mon"), [0, 1, 5, 6]);
        assert_eq!(values(&DAY_OF_WEEK, "SUNDAY,thurs"), [0, 4]);
    }

    #[test]
    fn an_error_names_what_is_allowed() {
        assert_eq!(HOUR.parse("24").unwrap_err(), "24 is out of range: allowed are 0-23");
        assert_eq!(DAY_OF_MONTH.parse("0").unwrap_err(), "0 is out of range: allowed are 1-31");
        let week = DAY_OF_WEEK.parse("mondya").unwrap_err();
        assert_eq!(
            week,
            "\"mondya\" is not a value: allowed are 0-7 (Sunday is 0 or 7), or sun-sat; did you mean monday?"
        );
        for wrong in ["", "1,", "*/0", "*/x", "5/2", "1-", "-1", "1-2-3", "mon", "*5", "1 ", "99999999999"] {
            assert!(MINUTE.parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_next_value_is_found_from_any_place() {
        let field = MINUTE.parse("5,59").unwrap();
        assert_eq!((field.next(0), field.next(6), field.next(60), field.next(64)), (Some(5), Some(59), None, None));
    }
}
