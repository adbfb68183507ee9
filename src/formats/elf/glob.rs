//! Names with wildcards.

/// Whether `name` is what `pattern` says: `*` stands for any bytes, `?` for one.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(wanted) if wanted == byte || *wanted == b'?' => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or(&[])
        .iter()
        .all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match() {
        let yes = [
            (".text", ".text"),
            ("*", ""),
            ("*", "x"),
            (".text*", ".text"),
            (".t?xt", ".text"),
            ("*a*b", "xaybzb"),
            ("**", "ab"),
            (".debug_*", ".debug_info"),
            ("", ""),
        ];
        let no = [
            (".text", ".tex"),
            ("?", ""),
            ("*a*b", "xaybz"),
            (".t?xt", ".txt"),
            ("", "a"),
        ];
        for (pattern, name) in yes {
            assert!(
                matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
        for (pattern, name) in no {
            assert!(
                !matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(200);
        let name = "a".repeat(199) + "b";
        assert!(!matches(pattern.as_bytes(), name.as_bytes()));
    }
}
