//! For tests: a partition in a store that does what a test needs, and a shard of it
//! with one event a record.

use std::sync::Arc;

use object_store::path::Path;

use super::store::double::Double;
use super::{About, Folder, Keeper, RecordId, Restored, Store, Written, restore};
use crate::shard::{Calendar, Names, Record, Rules, Shard};

/// When all events happened.
const AT: i64 = 1_662_652_800_000;

pub fn rules() -> Rules {
    Rules {
        calendar: Calendar::of_zone("Asia/Shanghai").unwrap(),
        dedup_horizon_s: 3_600,
        max_ahead_ms: 1,
    }
}

pub fn about() -> About {
    About {
        topic: "t".into(),
        epoch: 1,
        rules: rules().to_string(),
    }
}

/// The folder of partition 0 in this store.
pub fn folder(objects: &Double) -> Folder {
    let objects = Arc::new(objects.clone());
    Store::of("mem://store", objects, Path::default(), "w").folder("t", 1, 0)
}

/// A shard, and who keeps it.
pub struct Example {
    pub folder: Folder,
    pub keeper: Keeper,
    shard: Shard,
    names: Names,
    last: Option<RecordId>,
}

impl Example {
    /// An empty one of which the newest `keep` checkpoints are kept.
    pub fn new(folder: &Folder, keep: usize) -> Example {
        Example {
            keeper: Keeper::new(folder.clone(), about(), None, keep),
            folder: folder.clone(),
            shard: Shard::new(0, rules()),
            names: Names::default(),
            last: None,
        }
    }

    /// The next record of the log.
    pub fn apply(&mut self) {
        let offset = self.shard.offset().0;
        let event =
            format!(r#"{{"id":"{offset}","campaign":"c","amount":1,"currency":"CNY","at":{AT}}}"#);
        let record = Record {
            offset,
            timestamp: Some(AT),
            payload: Some(event.as_bytes()),
        };
        self.shard.apply(record, &mut self.names);
        self.last = Some(RecordId::of(&record, None));
    }

    /// A checkpoint as a worker takes it; `Err`: why not.
    pub async fn save(&mut self) -> Result<Written, String> {
        let whole = self.keeper.begin();
        self.write(whole).await
    }

    /// The same with all counters, however few have changed.
    pub async fn save_whole(&mut self) -> Result<Written, String> {
        self.keeper.begin();
        self.write(true).await
    }

    async fn write(&mut self, whole: bool) -> Result<Written, String> {
        self.shard.begin_snapshot(whole);
        let snapshot = self.shard.continue_snapshot(usize::MAX).unwrap();
        let saved = self.keeper.save(snapshot, self.last, AT, || 0).await;
        saved.map_err(|error| error.to_string())
    }

    /// One that is never written.
    pub fn give_up(&mut self) {
        self.shard.begin_snapshot(self.keeper.begin());
        self.shard.continue_snapshot(usize::MAX).unwrap();
    }

    /// What a process would begin with, which equals what is in memory.
    pub async fn restored(&mut self) -> Restored {
        let restored = restore(&self.folder, &about(), 0, &rules(), false).await;
        let mut restored = restored.unwrap().unwrap();
        let is = restored.shard.full_snapshot();
        assert_eq!(is.difference(&self.shard.full_snapshot()), None);
        restored
    }
}
