//! What `tally99 config show` prints: TOML that can be used as a file again
//! (but for the secrets), each value with its source.

use std::fmt::Write;

use super::build::{Loaded, Shown};
use super::kind::{Kind, Value};
use super::settings::{PROPERTIES, SECTIONS, SETTINGS};

impl Loaded {
    /// The resolved configuration as TOML, each value with its source as a
    /// comment, secrets as `***`.
    pub fn to_toml(&self) -> String {
        let mut out =
            String::from("# What tally99 resolved; after each value, where it comes from.\n");
        for section in SECTIONS {
            let _ = writeln!(out, "\n[{section}]");
            for (setting, shown) in SETTINGS.iter().zip(&self.settings) {
                let (of, name) = setting.parts();
                if of == *section {
                    line(&mut out, name, shown, self.meaning(setting.kind, shown));
                }
            }
            if *section == "kafka" {
                let _ = writeln!(out, "\n[{PROPERTIES}]");
                for shown in &self.properties {
                    let name = toml_edit::Value::from(shown.key.as_str()).to_string();
                    line(&mut out, &name, shown, String::new());
                }
            }
        }
        out
    }

    /// What 0 stands for, where it does not stand for itself.
    fn meaning(&self, kind: Kind, shown: &Shown) -> String {
        match kind {
            Kind::Whole {
                zero: Some(meaning),
                ..
            } if shown.value == Value::Whole(0) => {
                let here = match shown.key.as_str() {
                    "run.workers" => format!(": {} here", self.config.run.workers),
                    _ => String::new(),
                };
                format!("; 0 means {meaning}{here}")
            }
            _ => String::new(),
        }
    }
}

fn line(out: &mut String, name: &str, shown: &Shown, meaning: String) {
    // A path may hold anything, and a comment ends with its line.
    let source = shown.source.replace(char::is_control, "\u{fffd}");
    let _ = writeln!(out, "{name} = {}  # {source}{meaning}", shown.value);
}
