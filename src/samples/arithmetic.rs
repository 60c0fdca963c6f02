//! `tasks.add`, `tasks.multiply` and `tasks.sum_results`: whole numbers stay whole, as in Python.

use serde::Deserialize;
use serde_json::Number;

use taskgate_worker::{Context, Registry, TaskError};

#[derive(Deserialize)]
struct Two {
    x: Number,
    y: Number,
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<Number>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.task("tasks.add", async |_: Context, two: Two| combine(&two.x, &two.y, i128::checked_add, |x, y| x + y));
    registry
        .task("tasks.multiply", async |_: Context, two: Two| combine(&two.x, &two.y, i128::checked_mul, |x, y| x * y));
    registry.task("tasks.sum_results", async |_: Context, list: Numbers| {
        list.numbers.iter().try_fold(Number::from(0), |sum, next| combine(&sum, next, i128::checked_add, |x, y| x + y))
    });
}

/// Combines two numbers: exactly if both are integers and the result fits 128 bits, else as floating point.
fn combine(
    x: &Number,
    y: &Number,
    whole: impl Fn(i128, i128) -> Option<i128>,
    float: impl Fn(f64, f64) -> f64,
) -> Result<Number, TaskError> {
    let exact = x.as_i128().zip(y.as_i128()).and_then(|(x, y)| whole(x, y)).and_then(Number::from_i128);
    let rounded = || Number::from_f64(float(x.as_f64()?, y.as_f64()?));
    exact.or_else(rounded).ok_or_else(|| TaskError::fail("OverflowError", "the result is not a finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let add = |x, y| combine(&number(x), &number(y), i128::checked_add, |x, y| x + y).unwrap().to_string();
        assert_eq!(add("2", "3"), "5");
        assert_eq!(add("2", "3.5"), "5.5");
        assert_eq!(add("-2", "1"), "-1");
    }

    #[test]
    fn what_has_no_number_fails() {
        let huge = number("1e308");
        assert!(combine(&huge, &huge, i128::checked_mul, |x, y| x * y).is_err());
    }
}
