//! The command line: what can be typed, and its help. What it means is in the
//! modules that the commands call.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchCommand;
use crate::checkpoints::CheckpointsCommand;
use crate::config::{self, ConfigError, Loaded, RawProperty};
use crate::demo::DemoArgs;
use crate::generate::GenerateArgs;
use crate::logging::LogFormat;
use crate::totals::TotalsArgs;

/// Exact live totals of a giving day, folded from Kafka.
#[derive(Debug, Parser)]
#[command(name = "tally99", version, about, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// How log lines are written to standard error; RUST_LOG says which
    /// (error, warn, info, debug, or by module; default: info)
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  a check failed: totals or checkpoints are not what they should be, or a
     measurement is invalid
  2  wrong usage or configuration
  3  Kafka, a file or something else outside failed";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count the events of a topic, and emit totals, cuts and windows
    ///
    /// Runs until SIGINT (Ctrl-C) or SIGTERM; then what is counted is emitted and it exits. A
    /// second signal ends it at once. One process does the work of a group: a second one is
    /// refused, or waits to take over (--standby). It starts from its checkpoints
    /// (--checkpoints), or else from the beginning of the topic, and publishes nothing before it
    /// has reached what was published before, so no total ever steps back.
    Run(RunArgs),
    /// Make giving-day traffic from a seed, with its own exact sums
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate {
        /// What to make.
        #[command(flatten)]
        generate: GenerateArgs,
        /// Where to write to. Last, since its heading holds for what follows.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Print the totals of the top campaigns, or check them against a file
    #[command(after_help = TOTALS_EXAMPLES)]
    Totals {
        /// What to print.
        #[command(flatten)]
        totals: TotalsArgs,
        /// Where to read from. Last, since its heading holds for what follows.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Watch a giving day being counted, live: all in this process, no Kafka needed
    ///
    /// Starts an embedded broker, makes events at a steady rate (with repeats, refunds, late and
    /// malformed ones), counts and emits them as `tally99 run` does on a real Kafka, and shows the
    /// totals as they grow. Then it checks every campaign's total against the generator's own sums.
    /// It leaves no port, file or topic behind, and reads no configuration.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Measure how fast it is, and how long an event takes, on any Kafka
    ///
    /// With topics, group and checkpoints of its own, which it deletes again, also after Ctrl-C.
    /// docs/bench.md tells how to read what it prints.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Show, verify or delete checkpoints
    #[command(subcommand)]
    Checkpoints(CheckpointsCommand),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

const GENERATE_EXAMPLES: &str = "\
The same seed and settings make the same events, to the byte, whatever they are
written to and however fast. Shares are fractions of all records: 0.01 is 1%.

Examples:
  tally99 generate --expect expected.json
  tally99 generate --events 5000000 --rate 20000 --repeats 0.03
  tally99 generate --preset 99-giving-day-2022 --scale 0.01 --expect expected.json
  tally99 generate --events 1000 --out - | head";

const TOTALS_EXAMPLES: &str = "\
Examples:
  tally99 totals --bootstrap-servers kafka-1:9092
  tally99 totals --by donors --top 50 --follow
  tally99 totals --campaign '免费午餐' --campaign '大病救助' --format json
  tally99 totals --top 0 --format csv > totals.csv
  tally99 totals --compare expected.json";

const DEMO_EXAMPLES: &str = "\
On a terminal: q, Esc or Ctrl-C ends it early, and it checks what was made up to
then. Elsewhere it prints a line every few seconds.

Examples:
  tally99 demo
  tally99 demo --duration 5m --rate 50000
  tally99 demo --campaigns 100 --duration 10s | cat";

/// `tally99 config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the resolved configuration as TOML, each value with its source
    ///
    /// Secrets are printed as ***.
    #[command(after_help = CONFIG_EXAMPLES)]
    Show(SettingsArgs),
    /// Check the configuration and report every error in it
    #[command(after_help = CONFIG_EXAMPLES)]
    Check(SettingsArgs),
}

const CONFIG_EXAMPLES: &str = "\
Examples:
  tally99 config show
  tally99 config show --config config/giving-day.toml --workers 8
  TALLY99_KAFKA_GROUP=rehearsal tally99 config check --config config/giving-day.toml";

/// The settings that people change daily. All commands that read the
/// configuration take the same ones, so that what is typed for one serves the
/// next.
///
/// Values stay text here: the configuration reads and checks them with all
/// others, so that all errors are reported together.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Settings (over TALLY99_… variables, over the file, over the defaults)"
)]
pub struct SettingsArgs {
    /// Read settings from this TOML file; config/default.toml lists them all
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Brokers to start from: host:port, separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap_servers: Option<String>,
    /// The topic of the events
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// The consumer group
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// The topic of the campaigns' totals
    #[arg(long, value_name = "TOPIC")]
    pub totals_topic: Option<String>,
    /// The topic of the cuts
    #[arg(long, value_name = "TOPIC")]
    pub cuts_topic: Option<String>,
    /// The topic of the rolling windows
    #[arg(long, value_name = "TOPIC")]
    pub windows_topic: Option<String>,
    /// The topic of what cannot be counted
    #[arg(long, value_name = "TOPIC")]
    pub dead_letters_topic: Option<String>,
    /// How many threads read and count; 0: one a core
    #[arg(long, value_name = "NUMBER")]
    pub workers: Option<String>,
    /// Where checkpoints are kept: file:///folder or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    pub checkpoints: Option<String>,
    /// Pass a property to librdkafka; may be repeated. Others on this machine
    /// can see what is typed here: give a password as a variable, such as
    /// TALLY99_KAFKA_PROPERTIES_SASL_PASSWORD
    #[arg(long = "kafka-property", value_name = "NAME=VALUE")]
    pub kafka_properties: Vec<RawProperty>,
}

impl SettingsArgs {
    /// The flags as the configuration takes them.
    pub fn flags(&self) -> config::Flags {
        let given = [
            ("kafka.bootstrap_servers", &self.bootstrap_servers),
            ("kafka.group", &self.group),
            ("topics.donations", &self.topic),
            ("topics.totals", &self.totals_topic),
            ("topics.cuts", &self.cuts_topic),
            ("topics.windows", &self.windows_topic),
            ("topics.dead_letters", &self.dead_letters_topic),
            ("run.workers", &self.workers),
            ("checkpoints.url", &self.checkpoints),
        ];
        config::Flags {
            settings: given
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.clone()?)))
                .collect(),
            properties: self.kafka_properties.clone(),
        }
    }

    /// Reads the file, this process's environment and these flags.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any of them.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        config::load(self.config.as_deref(), std::env::vars_os(), &self.flags())
    }
}

/// The flags of `tally99 run`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// Read up to the ends that the partitions have now, emit the last cut, and
    /// exit; if it is stopped before, the exit code is 3
    #[arg(long)]
    pub until_end: bool,
    /// Wait for the topic of the events if it is missing, instead of exiting
    #[arg(long)]
    pub wait_for_topic: bool,
    /// Wait while another process does the work of the group, instead of exiting,
    /// and take over when it ends or dies
    #[arg(long, conflicts_with = "until_end")]
    pub standby: bool,
    /// The settings. Last, since their heading holds for what follows.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

const RUN_EXAMPLES: &str = "\
Examples:
  tally99 run --bootstrap-servers kafka-1:9092,kafka-2:9092
  tally99 run --config config/giving-day.toml --workers 8
  tally99 run --config config/giving-day.toml --standby
  tally99 run --topic donations --until-end";

impl RunArgs {
    /// The flags as the configuration takes them.
    pub fn flags(&self) -> config::Flags {
        let mut flags = self.settings.flags();
        if self.wait_for_topic {
            flags.settings.insert("run.wait_for_topic", "true".into());
        }
        flags
    }

    /// Reads the file, this process's environment and these flags.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any of them.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let file = self.settings.config.as_deref();
        config::load(file, std::env::vars_os(), &self.flags())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    /// [`RunArgs`] as a command of its own.
    #[derive(Parser)]
    struct Run {
        #[command(flatten)]
        args: RunArgs,
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        Run::command().debug_assert();
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let line = "run --bootstrap-servers b:1 --topic t --group g --totals-topic tt --cuts-topic ct \
                    --windows-topic wt --dead-letters-topic dt --workers 3 --checkpoints file:///c --kafka-property client.rack=x \
                    --wait-for-topic --until-end";
        let args = Run::parse_from(line.split_whitespace()).args;
        assert!(args.until_end && !args.standby);
        assert!(Run::parse_from(["run", "--standby"]).args.standby);
        assert!(Run::try_parse_from(["run", "--standby", "--until-end"]).is_err());
        // Not of the environment, which may have settings of its own.
        let config = config::load(None, [], &args.flags()).unwrap().config;
        assert_eq!(config.kafka.bootstrap_servers, "b:1");
        assert_eq!(config.kafka.group, "g");
        assert_eq!(config.kafka.properties["client.rack"], "x");
        let topics = &config.topics;
        let names = [
            &topics.donations,
            &topics.totals,
            &topics.cuts,
            &topics.windows,
            &topics.dead_letters,
        ];
        assert_eq!(names, ["t", "tt", "ct", "wt", "dt"]);
        assert_eq!(config.run.workers, 3);
        assert_eq!(config.checkpoints.url.as_deref(), Some("file:///c"));
        assert!(config.run.wait_for_topic);
    }
    #[test]
    fn no_secret_is_printed_by_debug() {
        for property in [
            "sasl.password=hunter2",
            "hunter2",
            "sasl.oauthbearer.config=k=hunter2",
        ] {
            let cli = Cli::parse_from(["tally99", "run", "--kafka-property", property]);
            let Command::Run(args) = &cli.command else {
                unreachable!()
            };
            for text in [format!("{cli:?}"), format!("{:?}", args.flags())] {
                assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
            }
        }
    }
    /// The words of a line of a shell that runs tally99, without what is around
    /// it: variables before, a comment, a pipe or a file behind.
    fn command(line: &str) -> Option<Vec<String>> {
        let mut words = Vec::new();
        for (i, part) in line.trim().split('\'').enumerate() {
            if i % 2 == 1 {
                words.push(part.to_string()); // Quoted, blanks and all.
            } else {
                words.extend(part.split_whitespace().map(String::from));
            }
        }
        let is_variable = |word: &String| word.contains('=') && !word.starts_with('-');
        let begin = words.iter().position(|word| !is_variable(word))?;
        let ends =
            |word: &String| matches!(word.as_str(), "#" | "|" | ">" | "2>" | "&&" | "&" | "\\");
        let words = words.into_iter().skip(begin);
        let words: Vec<String> = words.take_while(|word| !ends(word)).collect();
        (words.first()? == "tally99").then_some(words)
    }

    /// What stands between the fences of a Markdown file.
    fn code_blocks(text: &str) -> String {
        let blocks: Vec<&str> = text.split("\n```").skip(1).step_by(2).collect();
        blocks.join("\n")
    }

    fn help_of(command: &clap::Command, out: &mut String) {
        if let Some(help) = command.get_after_help() {
            out.push_str(&format!("{help}\n"));
        }
        for command in command.get_subcommands() {
            help_of(command, out);
        }
    }

    #[test]
    fn every_command_that_is_shown_to_people_can_be_typed() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let mut text = String::new();
        help_of(&Cli::command(), &mut text);
        text.push_str(&code_blocks(&read(&home.join("README.md"))));
        for entry in fs::read_dir(home.join("docs")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                text.push_str(&code_blocks(&read(&path)));
            }
        }
        // `${SEED:-1}` is 1, and what does not begin with a word is Kafka's own.
        let compose = read(&home.join("docker-compose.yml")).replace("${SEED:-1}", "1");
        for line in compose.lines() {
            if let Some(command) = line.trim().strip_prefix("command: ")
                && command.starts_with(char::is_alphabetic)
            {
                text.push_str(&format!("\ntally99 {command}"));
            }
        }

        let commands: Vec<_> = text.lines().filter_map(command).collect();
        assert!(commands.len() >= 15, "only {commands:?}");
        for name in [
            "run",
            "generate",
            "totals",
            "demo",
            "bench",
            "checkpoints",
            "config",
        ] {
            assert!(commands.iter().any(|words| words[1] == name), "{name}");
        }
        for words in commands {
            if let Err(error) = Cli::try_parse_from(&words) {
                assert!(!error.use_stderr(), "{words:?}: {error}"); // --help is no error.
            }
        }
    }

    #[test]
    fn a_command_is_found_in_what_is_around_it() {
        let words = command(" A=b tally99 totals --campaign 'a b' --top 0 > x.csv").unwrap();
        assert_eq!(words.join("|"), "tally99|totals|--campaign|a b|--top|0");
        assert_eq!(command("tally99 run  # count").unwrap().len(), 2);
        assert_eq!(command("docker compose up tally99"), None);
        assert_eq!(command(""), None);
    }
}
