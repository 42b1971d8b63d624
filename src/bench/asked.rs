//! What a bench was asked for, as reports have it.

use std::collections::BTreeMap;

use super::args::{BenchCommand, TrafficArgs};
use crate::money::grouped;

/// What was asked for, by name: reports of other answers are not of the same thing.
pub(super) type Asked = BTreeMap<String, String>;

impl BenchCommand {
    /// All that shapes what is measured, besides the settings of `run`.
    pub(super) fn asked(&self) -> Asked {
        match self {
            BenchCommand::Raw(args) | BenchCommand::Drain(args) => match &args.topic {
                Some(topic) => Asked::from([("topic".into(), topic.clone())]),
                None => args.traffic.asked([]),
            },
            BenchCommand::Paced(args) => args.traffic.asked([
                ("duration", format!("{:?}", args.duration)),
                ("warm-up", format!("{:?}", args.warmup)),
            ]),
            BenchCommand::Sweep(args) => args.traffic.asked([
                ("from", grouped(args.from)),
                ("to", grouped(args.to)),
                ("factor", args.factor.to_string()),
                ("bisect", args.bisect.to_string()),
                ("step", format!("{:?}", args.step)),
                ("warm-up", format!("{:?}", args.warmup)),
                ("limit of p99", format!("{:?}", args.limit_p99)),
            ]),
            BenchCommand::Day(args) => {
                let replay = args
                    .replay
                    .map_or("no".into(), |it| format!("{it} times faster"));
                let flowers = if args.donations_only { "no" } else { "yes" };
                args.traffic.asked([
                    ("scale", args.scale.to_string()),
                    ("flowers", flowers.into()),
                    ("replay", replay),
                ])
            }
            BenchCommand::Compare(_) | BenchCommand::Measure => Asked::new(),
        }
    }
}

impl TrafficArgs {
    fn asked<const N: usize>(&self, more: [(&str, String); N]) -> Asked {
        let traffic = [
            ("partitions", self.partitions.to_string()),
            ("campaigns", grouped(self.campaigns)),
            ("seed", self.seed.to_string()),
        ];
        let all = traffic.into_iter().chain(more);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
