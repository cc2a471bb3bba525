//! Printing data on stdout: lines, tables, JSON.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// Prints one line, or several.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{}", harmless(text)).map_err(Failure::Output)
}

/// Without characters that a terminal would obey: names, reasons and findings come from elsewhere.
/// (A program's own output is passed on as it is, by other ways.)
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if is_obeyed(c) { '\u{fffd}' } else { c })
        .collect()
}

/// As a shell takes it: a path or name that it would take apart is put into quotes.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A terminal acts on it, or shows what stands beside it in another order or not at all: control
/// characters, those that turn the direction of writing, line separators and tags (Unicode TR 36).
const fn is_obeyed(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// JSON text of the same meaning, without those characters: they can only be within its strings.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if is_obeyed(c) {
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Prints a value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    line(&escaped(&serde_json::to_string_pretty(value)?))
}

/// Prints a value as JSON on one line.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    line(&escaped(&serde_json::to_string(value)?))
}

/// Prints a table without lines, as Docker's lists are.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    line(&text.join("\n"))
}

/// A note for the person, on stderr.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

/// A number and what is counted: `1 container`, `2 containers`.
pub(crate) fn count(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// Bytes as people read them: powers of 1024, three digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = u128::from(count) * 10;
    let mut unit = 0;
    while scaled >= 10_240 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if scaled >= 1000 => format!("{} {}", scaled / 10, UNITS[unit]),
        _ => format!("{}.{} {}", scaled / 10, scaled % 10, UNITS[unit]),
    }
}

/// How long ago, in one unit.
pub(crate) fn ago(unix_ms: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let elapsed = SystemTime::now().duration_since(then).unwrap_or_default();
    span(elapsed)
}

/// A time span in one unit.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7_199 => (seconds / 60, "minute"),
        7_200..=172_799 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_is_printed() {
        let hostile = "a\tb\n\x1b]0;title\x07\u{9b}2J\r";
        assert_eq!(
            harmless(hostile),
            "a\tb\n\u{fffd}]0;title\u{fffd}\u{fffd}2J\u{fffd}"
        );
    }

    #[test]
    fn a_shell_reads_what_was_quoted() {
        for word in [
            "/var/lib/teu",
            "a b",
            "it's",
            "$HOME",
            "",
            "a;b",
            "é",
            "~x",
            "a\nb",
        ] {
            let said = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), word);
        }
        assert_eq!(quoted("/var/lib/teu"), "/var/lib/teu");
    }

    #[test]
    fn nothing_that_is_printed_turns_the_direction_of_writing() {
        assert_eq!(harmless("cod\u{202e}gpj.exe"), "cod\u{fffd}gpj.exe");
        let hostile = "a\u{202e}b\u{2066}c\u{9b}d\u{7f}e\u{e0041}f\ng\u{2028}";
        let json = escaped(&serde_json::to_string(hostile).unwrap());
        assert_eq!(
            json,
            r#""a\u202eb\u2066c\u009bd\u007fe\udb40\udc41f\ng\u2028""#
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
        assert_eq!(harmless(&json), json);
    }

    #[test]
    fn bytes_read_well() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn spans_read_well() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_200, "2 hours"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
